"""Runners: what runs the command of a trial, and what became of it."""
