"""The last task of a sweep: it reads every trial's record and says what came out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_hptuning.operators.stopping import find_stop, stop_summary
from airflow_hptuning.operators.sweep import gather
from airflow_hptuning.planning import plan
from airflow_hptuning.results import leaderboard, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_hptuning.operators.sweep import Sweep

SHOWN_TRIALS = 20
"""How many trials the leaderboard in the log has."""


class CollectOperator(BaseOperator):
    """Collects the results of a sweep: runs whatever happened, and fails only if no trial succeeded.

    Its XCom is the summary: best trial, counts by state, failures by class, times, and the leaderboard as text.

    Args:
        sweep: The sweep.
        pairs: Id of each task that suggests, with the id of the mapped task of its trials.
    """

    ui_color = "#f7e8d7"

    def __init__(self, *, sweep: Sweep, pairs: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self.pairs = pairs

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the summary of the run as a JSON object."""
        spec = self.sweep.spec
        records = gather(context["ti"], self.pairs)
        stop = find_stop(context["ti"], self.pairs)
        started = context["dag_run"].start_date
        mode = spec.airflow.metrics.value
        summary = summarise(
            records,
            spec.objective,
            mode,
            started=started.timestamp() if started else None,
            ended=time.time(),
            stopped=stop.text if stop else None,
        )
        summary["stop"] = stop_summary(stop, plan(spec), records) if stop else None
        summary["leaderboard"] = leaderboard(records, spec.objective, mode, limit=SHOWN_TRIALS)
        summary["search"] = spec.search
        summary["sweep"] = self.sweep.dag_id
        self.log.info("Results of %s\n%s", self.sweep.dag_id, summary["leaderboard"])
        # A trial that was stopped has a result as well, if it has a value.
        if summary["best"] is None and not any(record.state == "succeeded" for record in records):
            # A failing task returns nothing, so the summary must be stored before.
            context["ti"].xcom_push("return_value", summary)
            raise AirflowFailException(_why_nothing_succeeded(summary, len(records)))
        return summary


def _why_nothing_succeeded(summary: dict[str, Any], trials: int) -> str:
    if not trials:
        return f"No trial was started: {summary['stopped'] or 'see the tasks before this one'}"
    stopped = f"; the sweep was stopped: {summary['stopped']}" if summary["stopped"] else ""
    causes = [
        f"{cause['count']} x {name} (such as: {cause['example']})"
        for name, cause in summary.get("failures", {}).items()
    ]
    return f"None of the {trials} trials succeeded: {'; '.join(causes) or 'none ran to its end'}{stopped}"
