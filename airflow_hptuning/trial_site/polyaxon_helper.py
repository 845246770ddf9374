"""Stands in for polyaxon-helper, the client before Polyaxon 0.3; an installed one wins.

Python 3.7 and later.
"""

from __future__ import annotations

import os

from _hptuning_site import give_way

if os.environ.get("HPTUNING_POLYAXON_CLIENT") == "shim" or not give_way(__name__):
    from airflow_hptuning.tracking import (
        get_cluster_def,
        get_data_paths,
        get_declarations,
        get_experiment_info,
        get_job_info,
        get_log_level,
        get_outputs_path,
        get_outputs_refs_paths,
        get_params,
        get_task_info,
        get_tf_config,
    )
    from airflow_hptuning.tracking import log_metrics as send_metrics

    __all__ = [
        "get_cluster_def",
        "get_data_paths",
        "get_declarations",
        "get_experiment_info",
        "get_job_info",
        "get_log_level",
        "get_outputs_path",
        "get_outputs_refs_paths",
        "get_params",
        "get_task_info",
        "get_tf_config",
        "send_metrics",
    ]
