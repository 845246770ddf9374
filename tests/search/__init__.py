"""Tests of the search algorithms."""
