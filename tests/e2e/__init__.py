"""End-to-end tests: a real Airflow, real processes."""
