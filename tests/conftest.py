"""Settings for all tests: an Airflow home of their own, and hypothesis profiles."""

from __future__ import annotations

import os
import tempfile

# Airflow reads its configuration at the first import, so this comes before any test module. A home of its own keeps
# tests from reading (or writing) the configuration of whoever runs them.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="hptuning-tests-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__HPTUNING__DEFAULT_RUNNER"] = "local"
for name in [name for name in os.environ if name.startswith("AIRFLOW__CORE__DAGS")]:
    del os.environ[name]

from hypothesis import HealthCheck, settings  # noqa: E402 - after the environment is set

settings.register_profile(
    "default",
    deadline=None,  # no timing asserts: the machine is shared
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
