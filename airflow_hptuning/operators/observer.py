"""What is seen of a trial while it runs: its lines, the metrics in them, and in the end its record.

The same for every runner, in a task as in a trigger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from airflow_hptuning.metrics import MetricLog, MetricParser, describe
from airflow_hptuning.operators.sweep import Throttle
from airflow_hptuning.runners.lines import shown
from airflow_hptuning.runners.outcomes import record
from airflow_hptuning.runners.pod_script import NO_CHECKPOINT, SAYS
from airflow_hptuning.trials import TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_hptuning.operators.stop_watch import StopWatch
    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.trials import Outcome, Suggestion, TrialRecord

LIVE_SECONDS = 5.0
"""How often, at most, a running trial publishes its metrics."""

_ONE_BY_ONE = 20
"""Most lines that come together and are shown one by one."""

_TOGETHER = 200
"""Most lines of one entry of the log."""


class TrialObserver:
    """Observes one trial.

    Args:
        spec: The sweep.
        suggestion: What is tried.
        watch: Tests the metrics against goals and policies.
        show: Called with what a reader of the log should see: a line, or several.
        publish: Called with the latest metrics, now and then.
    """

    def __init__(
        self,
        spec: SweepSpec,
        suggestion: Suggestion,
        watch: StopWatch,
        *,
        show: Callable[[str], None],
        publish: Callable[[dict[str, Any]], None],
    ) -> None:
        self._spec = spec
        self._suggestion = suggestion
        self._watch = watch
        self._show = show
        self._publish = publish
        self._names = tuple(spec.directions)
        self._parser = MetricParser(self._names, spec.airflow.metrics.pattern)
        self._log = MetricLog(spec.directions)
        self._due = Throttle(LIVE_SECONDS)
        self._has_news = False
        self._lines = 0
        self._shown = 0
        self._note: str | None = None

    def on_line(self, line: str) -> None:
        """Take in one line of output."""
        self.on_lines([line])

    def on_lines(self, lines: Sequence[str]) -> None:
        """Take in lines of output that have come together."""
        # After a restart of the log its first lines are known.
        known = max(0, self._shown - self._lines)
        self._lines += len(lines)
        self._shown = max(self._shown, self._lines)
        self._show_all([shown(line) for line in lines[known:]])
        for number, line in enumerate(lines):
            for observation in self._parser.parse(line):
                self._log.add(observation)
                if number >= known:
                    self._has_news = True
                    self._watch.observe(observation)
        if self._has_news and self._due():
            self._has_news = False
            self._publish(dict(self._log.last))

    def _show_all(self, lines: Sequence[str]) -> None:
        """Show lines one by one, or in a few entries of the log where they come by the hundred: an entry is dear."""
        if any(line == SAYS + NO_CHECKPOINT for line in lines):
            self._note = NO_CHECKPOINT
        size = 1 if len(lines) <= _ONE_BY_ONE else _TOGETHER
        for first in range(0, len(lines), size):
            self._show("\n".join(lines[first : first + size]))

    def restart(self) -> None:
        """Forget the metrics: the log of the trial starts over from its first line."""
        self._lines = 0
        self._log = MetricLog(self._spec.directions)

    def restore(self, summary: str) -> None:
        """Take in the summary of ``tracking``, which holds what a log may have lost."""
        self._log.restore(summary)

    def record(self, outcome: Outcome, *, attempt: int, has_started: bool = True) -> TrialRecord:
        """Return the record of the trial.

        Args:
            outcome: How it ended.
            attempt: Number of the try, from 1.
            has_started: Whether it ever ran; one that was stopped before was skipped.
        """
        pattern = self._spec.airflow.metrics.pattern
        found = record(
            self._suggestion,
            outcome,
            self._log,
            objective=self._spec.objective,
            mode=self._spec.airflow.metrics.value,
            attempt=attempt,
            metrics_hint=describe(self._names, pattern),
        )
        if found.state is TrialState.STOPPED and not has_started:
            return evolve(found, state=TrialState.SKIPPED, started=None, ended=None)
        return evolve(found, note=found.note or self._note)
