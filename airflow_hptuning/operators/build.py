"""The task that prepares the environment of a sweep's trials on the local runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_hptuning.errors import BuildError
from airflow_hptuning.operators.sweep import data_path, working_dir
from airflow_hptuning.runners.environments import build_environment

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_hptuning.operators.sweep import Sweep


class BuildEnvironmentOperator(BaseOperator):
    """Runs the build steps of a sweep once, into a virtual environment that later runs find again.

    A failing step fails the sweep at once, with the step's last lines; no trial starts.

    Args:
        sweep: The sweep.
    """

    ui_color = "#efe3d0"

    def __init__(self, *, sweep: Sweep, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep

    def execute(self, context: Context) -> str:
        """Return the folder of the environment."""
        build = self.sweep.spec.build
        try:
            return str(
                build_environment(
                    build.build_steps if build else (),
                    build.env_vars if build else (),
                    root=data_path() / "environments",
                    image=build.image if build else None,
                    working_dir=working_dir(self.sweep.spec),
                    on_line=lambda line: self.log.info("%s", line),
                )
            )
        except BuildError as error:
            # The steps would fail again: no retry.
            raise AirflowFailException(str(error)) from error
