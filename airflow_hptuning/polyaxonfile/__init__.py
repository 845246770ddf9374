"""The polyaxonfile: the only place for Polyaxon's words."""
