"""The task of one trial on the local runner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from airflow_hptuning.operators.observer import TrialObserver
from airflow_hptuning.operators.stop_watch import STOP_GRACE
from airflow_hptuning.operators.sweep import data_path, outputs_folder, pull_list, working_dir
from airflow_hptuning.operators.trial_base import TrialOperator
from airflow_hptuning.planning import resumes
from airflow_hptuning.polyaxonfile.template import trial_command
from airflow_hptuning.runners.environments import environment_variables
from airflow_hptuning.runners.local import LocalRunner
from airflow_hptuning.runners.pod_script import NO_CHECKPOINT
from airflow_hptuning.trials import Failure, FailureClass, Suggestion, TrialRecord, TrialState

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_hptuning.operators.stop_watch import StopWatch
    from airflow_hptuning.operators.sweep import Sweep
    from airflow_hptuning.trials import TrialCommand


class LocalTrialOperator(TrialOperator):
    """Runs one trial as a process group on the worker."""

    ui_color = "#e2f0d9"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._runner: LocalRunner | None = None
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the trial and return its record as a JSON object."""
        watch = self.watch_from_start(context)
        result = self._run(Suggestion.from_json(self.suggestion), context, watch)
        if not self._killed:
            watch.finished(result, will_retry=self.will_retry(result, context))
        if result.failure is not None:
            context["ti"].xcom_push("return_value", result.to_json())
            self.fail(result, watch, context)
        return result.to_json()

    def on_kill(self) -> None:
        """End the trial's whole process group: the task was killed, cleared, marked, or timed out."""
        self._killed = True
        if self._runner is not None:
            self._runner.kill()

    def _run(self, suggestion: Suggestion, context: Context, watch: StopWatch) -> TrialRecord:
        spec = self.sweep.spec
        attempt = context["ti"].try_number
        command = self._command(suggestion, context, attempt)
        observer = TrialObserver(
            spec,
            suggestion,
            watch,
            show=lambda line: self.log.info("%s", line),
            publish=lambda metrics: context["task_state_store"].set("metrics", metrics),
        )
        timeout = spec.airflow.trial.timeout
        self._runner = LocalRunner(
            working_dir=working_dir(self.sweep.spec),
            env=self._environment(context),
            timeout=timeout.total_seconds() if timeout else None,
            grace=STOP_GRACE,
        )
        note = _missing_checkpoint(self.sweep, suggestion, Path(command.outputs_path))
        self.log.info("Trial %s: %s", suggestion.label, command.command)
        outcome = self._runner.run(command, on_line=observer.on_line, should_stop=watch.check)
        result = observer.record(outcome, attempt=attempt)
        if self._killed:
            # Whoever killed it (a person, a worker's shutdown), the trial has no result; another try may have.
            killed = Failure(FailureClass.INFRASTRUCTURE, "the task was killed", outcome.log_tail)
            result = evolve(result, state=TrialState.FAILED, failure=killed)
        result = evolve(result, note=result.note or note)
        if result.state is TrialState.SUCCEEDED:
            self.log.info("Trial %s succeeded: %s", suggestion.label, dict(result.metrics))
        return result

    def _command(self, suggestion: Suggestion, context: Context, attempt: int) -> TrialCommand:
        run_id = context["run_id"]
        base = self.sweep.spec.airflow.outputs.path
        root = data_path() / "outputs" if base is None else Path(working_dir(self.sweep.spec) or ".") / base
        folder = outputs_folder(self.sweep, run_id, suggestion)
        return trial_command(
            self.sweep.spec,
            suggestion,
            sweep=self.sweep.dag_id,
            run_id=run_id,
            outputs_path=str(root / folder),
            attempt=attempt,
        )

    def _environment(self, context: Context) -> dict[str, str]:
        env = dict(self.sweep.spec.airflow.local.env)
        if self.build_task_id:
            (folder,) = pull_list(context["ti"], self.build_task_id)
            build = self.sweep.spec.build
            env = environment_variables(Path(folder), build.env_vars if build else ()) | env
        return env


def _missing_checkpoint(sweep: Sweep, suggestion: Suggestion, outputs: Path) -> str | None:
    """What the record of a promoted trial says when there is nothing to resume from."""
    if not suggestion.rung or not resumes(sweep.spec) or (outputs.is_dir() and any(outputs.iterdir())):
        return None
    return NO_CHECKPOINT
