"""The task of one trial on the local runner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from attrs import evolve

from airflow_hptuning.metrics import MetricLog, MetricParser, describe
from airflow_hptuning.operators.stop_watch import STOP_GRACE
from airflow_hptuning.operators.stopping import stop_watch
from airflow_hptuning.operators.sweep import Throttle, data_path, outputs_folder, pull_list, working_dir
from airflow_hptuning.planning import resumes
from airflow_hptuning.polyaxonfile.template import trial_command
from airflow_hptuning.runners.environments import environment_variables
from airflow_hptuning.runners.lines import shown
from airflow_hptuning.runners.local import LocalRunner
from airflow_hptuning.runners.outcomes import record
from airflow_hptuning.trials import Failure, FailureClass, Suggestion, TrialRecord, TrialState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_hptuning.operators.stop_watch import StopWatch
    from airflow_hptuning.operators.sweep import Sweep
    from airflow_hptuning.trials import TrialCommand

LIVE_SECONDS = 5.0
"""How often, at most, a running trial writes its metrics to the task state store."""


class LocalTrialOperator(BaseOperator):
    """Runs one trial as a process group on the worker.

    Its XCom is the trial's record, also when the trial fails. The task fails with the trial; only a failure that is
    not the user's code's is retried, unless the file sets ``airflow.trial.retries``. A trial that early stopping ends
    has a result, so its task succeeds; one that it does not let start is skipped.

    Args:
        sweep: The sweep.
        suggestion: The suggestion to try, as JSON.
        build_task_id: The task whose result is the environment to run in, if there is one.
    """

    ui_color = "#e2f0d9"

    def __init__(
        self,
        *,
        sweep: Sweep,
        suggestion: Mapping[str, Any],
        build_task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self.suggestion = suggestion
        self.build_task_id = build_task_id
        self._runner: LocalRunner | None = None
        self._killed = False

    @property
    def trial_label(self) -> str:
        """What the UI shows in place of the map index."""
        return Suggestion.from_json(self.suggestion).label

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the trial and return its record as a JSON object."""
        suggestion = Suggestion.from_json(self.suggestion)
        watch = stop_watch(context, self.sweep.spec, suggestion.trial, self.log)
        if (reason := watch.before_start()) is not None:
            raise AirflowSkipException(f"the sweep is stopped: {reason.text}")
        result = self._run(suggestion, context, watch)
        will_retry = self._is_worth_a_retry(result) and context["ti"].try_number <= context["ti"].max_tries
        if not self._killed:
            watch.finished(result, will_retry=will_retry)
        if result.failure is None:
            return result.to_json()
        # A failing task returns nothing, so the record must be stored before.
        context["ti"].xcom_push("return_value", result.to_json())
        message = f"Trial {suggestion.label} failed ({result.failure.failure_class.value}): {result.failure.reason}"
        # A stopped sweep does not wait for another try.
        if will_retry and not watch.is_stopped():
            raise AirflowException(message)
        raise AirflowFailException(message)

    def _is_worth_a_retry(self, result: TrialRecord) -> bool:
        if result.failure is None:
            return False
        return result.failure.failure_class.is_infrastructure or self.sweep.spec.airflow.trial.retries is not None

    def on_kill(self) -> None:
        """End the trial's whole process group: the task was killed, cleared, marked, or timed out."""
        self._killed = True
        if self._runner is not None:
            self._runner.kill()

    def _run(self, suggestion: Suggestion, context: Context, watch: StopWatch) -> TrialRecord:
        spec = self.sweep.spec
        attempt = context["ti"].try_number
        command = self._command(suggestion, context, attempt)
        parser = MetricParser(tuple(spec.directions), spec.airflow.metrics.pattern)
        log = MetricLog(spec.directions)
        due = Throttle(LIVE_SECONDS)

        def on_line(line: str) -> None:
            self.log.info("%s", shown(line))
            for observation in parser.parse(line):
                log.add(observation)
                watch.observe(observation)
            if due() and log.last:
                context["task_state_store"].set("metrics", {**log.last})

        timeout = spec.airflow.trial.timeout
        self._runner = LocalRunner(
            working_dir=working_dir(self.sweep.spec),
            env=self._environment(context),
            timeout=timeout.total_seconds() if timeout else None,
            grace=STOP_GRACE,
        )
        note = _missing_checkpoint(self.sweep, suggestion, Path(command.outputs_path))
        self.log.info("Trial %s: %s", suggestion.label, command.command)
        outcome = self._runner.run(command, on_line=on_line, should_stop=watch.check)
        result = record(
            suggestion,
            outcome,
            log,
            objective=spec.objective,
            mode=spec.airflow.metrics.value,
            attempt=attempt,
            metrics_hint=describe(tuple(spec.directions), spec.airflow.metrics.pattern),
        )
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
    return "no checkpoint in the outputs directory: the trial starts from scratch"
