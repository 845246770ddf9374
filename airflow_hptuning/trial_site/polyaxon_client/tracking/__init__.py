"""Polyaxon's tracking module, served by ``airflow_hptuning.tracking``."""

from __future__ import annotations

from airflow_hptuning.tracking import (
    Experiment,
    get_data_paths,
    get_log_level,
    get_outputs_path,
    get_outputs_refs_paths,
)

__all__ = [
    "Experiment",
    "get_data_paths",
    "get_log_level",
    "get_outputs_path",
    "get_outputs_refs_paths",
]
