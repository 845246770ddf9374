"""The task that prepares the environment of a sweep's trials on the local runner, and how a build fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_hptuning.errors import BuildError
from airflow_hptuning.operators.stop_watch import BoardError
from airflow_hptuning.operators.stopping import RunBoard
from airflow_hptuning.operators.sweep import data_path, working_dir
from airflow_hptuning.runners.environments import build_environment
from airflow_hptuning.search.early_stopping import StopCause, StopReason

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

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
            fail_sweep(str(error), context, self.log)


def fail_sweep(message: str, context: Context, log: Logger) -> NoReturn:
    """End the run, in which nothing can start without the build: its tasks are skipped, and say why.

    Without this they would all be "upstream failed", and the task that collects could not tell the reason.

    Raises:
        AirflowFailException: Always; the message is the build's.
    """
    board = RunBoard.of(context)
    try:
        board.put(StopReason(StopCause.BUILD, message, time.time()))
        board.skip_rest()
    except BoardError as error:
        log.warning("Could not skip the trials: %s", error)
    raise AirflowFailException(message)
