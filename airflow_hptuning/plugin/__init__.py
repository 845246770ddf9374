"""The Airflow plugin: every Airflow process loads it, so it stays cheap."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_hptuning.plugin import pools

PRELOADING_COMMANDS = {"scheduler", "dag-processor", "celery"}
"""Airflow commands whose processes are forked for every task or parse: what they have loaded, their children have."""


class HptuningPlugin(AirflowPlugin):
    """Keeps the pools of sweeps, and loads early what every task of a sweep needs."""

    name = "hptuning"
    listeners = [pools]  # noqa: RUF012 - the base class declares it so

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Load the DAG builder in the processes that fork: tasks then start with it in memory."""
        if PRELOADING_COMMANDS.intersection(sys.argv[1:2]):
            # By name: the plugin itself must not depend on the builder, because the API server loads it too.
            importlib.import_module("airflow_hptuning.dag_builder")
