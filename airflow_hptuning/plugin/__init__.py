"""The Airflow plugin: every Airflow process loads it, so it stays cheap."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_hptuning.plugin import pools

PRELOADING_COMMANDS = {"scheduler", "dag-processor", "celery", "triggerer"}
"""Airflow commands whose processes are forked for every task or parse: what they have loaded, their children have."""

EXECUTING_COMMANDS = {"scheduler", "celery", "triggerer"}
"""Those of them whose children do what trials need, and not only parse."""

PRELOADS = {
    "kubernetes": (
        "airflow.providers.cncf.kubernetes.operators.pod",
        "airflow_hptuning.operators.pod_trigger",
        "kubernetes_asyncio.client",
    ),
    "bayesian": ("airflow_hptuning.search.bayesian",),
}
"""Modules by the word of ``[hptuning] preload``; each costs a task that must load it itself a second or two."""


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
        if EXECUTING_COMMANDS.intersection(sys.argv[1:2]):
            for module in _preloaded():
                importlib.import_module(module)


def _preloaded() -> list[str]:
    """Modules that the configuration wants loaded; by default those of the default runner."""
    from airflow.configuration import conf

    words = conf.get("hptuning", "preload", fallback="auto").replace(",", " ").split()
    if words == ["auto"]:
        words = [conf.get("hptuning", "default_runner", fallback="kubernetes")]
    return [module for word in words for module in PRELOADS.get(word, ())]
