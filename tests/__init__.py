"""Tests of airflow_hptuning; the folders mirror the package."""
