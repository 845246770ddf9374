"""Tests of the polyaxonfile reader."""
