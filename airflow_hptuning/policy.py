"""The module behind Airflow's ``airflow.policy`` entry point: every Airflow process imports it when it starts.

It teaches this process to read polyaxonfiles as DAG files. Plugins come too late for that (the command line and the
parser read DAG files without loading them), and this module must stay cheap and must never break an Airflow process.
"""

from __future__ import annotations

from airflow_hptuning import discovery

discovery.register()
