"""Conformance kits: what every parameter, algorithm and runner must do."""
