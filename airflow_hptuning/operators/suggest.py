"""The task that proposes configs: its result is the list over which the trials are mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_hptuning.operators.stopping import skip_if_stopped
from airflow_hptuning.search.base import Batched

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_hptuning.operators.sweep import Sweep


class SuggestOperator(BaseOperator):
    """Suggests the trials of one batch of a grid or random search, or of an initial design.

    Suggestions depend on the file and the run only, so a repeated task suggests the same.

    Args:
        sweep: The sweep.
        first: Number of the first trial of the batch.
        count: How many trials the batch has at most.
    """

    ui_color = "#d7e8f7"

    def __init__(self, *, sweep: Sweep, first: int, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self.first = first
        self.count = count

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the suggestions of the batch as JSON objects."""
        skip_if_stopped(context)
        algorithm = self.sweep.algorithm(context["run_id"])
        if not isinstance(algorithm, Batched):
            raise TypeError(f"{algorithm.name} has no batches")
        suggestions = algorithm.suggestions(self.first, self.first + self.count)
        self.log.info("%s search suggests %d trials", algorithm.name.capitalize(), len(suggestions))
        for suggestion in suggestions:
            self.log.info("%s", suggestion.label)
        return [suggestion.to_json() for suggestion in suggestions]
