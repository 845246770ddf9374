"""What the tasks of trials have in common, whatever the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_hptuning.operators.stopping import stop_watch
from airflow_hptuning.trials import Suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_hptuning.operators.stop_watch import StopWatch
    from airflow_hptuning.operators.sweep import Sweep
    from airflow_hptuning.trials import TrialRecord


class TrialOperator(BaseOperator):
    """Runs one trial.

    Its XCom is the trial's record, also when the trial fails. The task fails with the trial; only a failure that is
    not the user's code's is retried, unless the file sets ``airflow.trial.retries``. A trial that early stopping ends
    has a result, so its task succeeds; one that it does not let start is skipped.

    Args:
        sweep: The sweep.
        suggestion: The suggestion to try, as JSON.
        build_task_id: The task whose result is what the trial runs in, if there is one.
    """

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

    @property
    def trial_label(self) -> str:
        """What the UI shows in place of the map index."""
        return Suggestion.from_json(self.suggestion).label

    def watch(self, context: Context) -> StopWatch:
        """Return what tells the trial when to end."""
        return stop_watch(context, self.sweep.spec, self.suggestion["trial"], self.log)

    def watch_from_start(self, context: Context) -> StopWatch:
        """As ``watch``, for a trial that is about to start.

        Raises:
            AirflowSkipException: The sweep is stopped.
        """
        watch = self.watch(context)
        reason = watch.before_start()
        if reason is not None:
            raise AirflowSkipException(f"the sweep is stopped: {reason.text}")
        return watch

    def will_retry(self, record: TrialRecord, context: Context) -> bool:
        """Whether the trial will be tried again, if the sweep goes on."""
        if record.failure is None or context["ti"].try_number > context["ti"].max_tries:
            return False
        return record.failure.failure_class.is_infrastructure or self.sweep.spec.airflow.trial.retries is not None

    def fail(self, record: TrialRecord, watch: StopWatch, context: Context) -> None:
        """Fail the task with its trial; the record must be stored by now, as a failing task returns nothing.

        Raises:
            AirflowException: It will be tried again.
            AirflowFailException: It will not.
        """
        if record.failure is None:
            return
        kind, reason = record.failure.failure_class.value, record.failure.reason
        message = f"Trial {self.trial_label} failed ({kind}): {reason}"
        # A stopped sweep does not wait for another try.
        if self.will_retry(record, context) and not watch.is_stopped():
            raise AirflowException(message)
        raise AirflowFailException(message)
