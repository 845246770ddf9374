"""Callbacks for frameworks."""
