"""Hyperparameter tuning on Apache Airflow from one polyaxonfile.

The public names are loaded when they are first used: Airflow imports this package in every process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_hptuning.dag_builder import build_dag as build_dag
    from airflow_hptuning.discovery import load as load
    from airflow_hptuning.planning import plan as plan
    from airflow_hptuning.planning import suggest as suggest
    from airflow_hptuning.polyaxonfile.parser import load_spec as load_spec

__version__ = "0.1.0"

__all__ = ["__version__", "build_dag", "load", "load_spec", "plan", "suggest"]

_HOMES = {
    "build_dag": "airflow_hptuning.dag_builder",
    "load": "airflow_hptuning.discovery",
    "load_spec": "airflow_hptuning.polyaxonfile.parser",
    "plan": "airflow_hptuning.planning",
    "suggest": "airflow_hptuning.planning",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def get_provider_info() -> dict[str, Any]:
    """Tell Airflow what this package provides; imports nothing."""
    return {
        "package-name": "airflow-hptuning",
        "name": "Hyperparameter tuning",
        "description": "Hyperparameter sweeps from polyaxonfiles: grid, random, Hyperband, Bayesian optimisation.",
        "versions": [__version__],
        "cli": ["airflow_hptuning.cli.get_cli_commands"],
        "config": {
            "hptuning": {
                "description": "Settings of airflow-hptuning.",
                "options": {
                    "default_runner": {
                        "description": "Runner of sweeps that name none: kubernetes or local.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "local",
                        "default": "kubernetes",
                    },
                    "preload": {
                        "description": (
                            "What scheduler, Celery worker and triggerer load when they start, so that the tasks they"
                            " fork need not: kubernetes (for pods), bayesian (numpy, scipy and scikit-learn, some 100"
                            " MB), both, or none. auto: kubernetes where that is the default runner."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "kubernetes, bayesian",
                        "default": "auto",
                    },
                    "data_path": {
                        "description": (
                            "Folder for what the local runner writes: outputs of trials and environments of"
                            " builds. Default: hptuning below AIRFLOW_HOME."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/hptuning",
                        "default": "",
                    },
                },
            },
        },
    }
