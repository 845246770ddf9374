"""The tasks between the rungs of a Hyperband bracket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseBranchOperator, BaseOperator

from airflow_hptuning.operators.stopping import skip_if_stopped
from airflow_hptuning.operators.sweep import completed, gather
from airflow_hptuning.search.hyperband import Hyperband

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_hptuning.operators.sweep import Sweep
    from airflow_hptuning.trials import Suggestion


def _hyperband(sweep: Sweep, run_id: str) -> Hyperband:
    algorithm = sweep.algorithm(run_id)
    if not isinstance(algorithm, Hyperband):
        raise TypeError(f"{algorithm.name} has no rungs")
    return algorithm


class SuggestRungOperator(BaseOperator):
    """Suggests the trials of a rung, or of a part of it: new ones for the first rung, else the survivors.

    Args:
        sweep: The sweep.
        bracket: The bracket.
        rung: The rung whose trials are suggested.
        first: Position of the first trial of the part.
        count: How many trials the part has at most.
        pairs: For a later rung: id of each task that suggested the rung before, with that of its trials.
    """

    ui_color = "#d7e8f7"

    def __init__(
        self,
        *,
        sweep: Sweep,
        bracket: int,
        rung: int,
        first: int,
        count: int,
        pairs: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self.bracket = bracket
        self.rung = rung
        self.first = first
        self.count = count
        self.pairs = pairs

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the suggestions of the part as JSON objects."""
        skip_if_stopped(context)
        algorithm = _hyperband(self.sweep, context["run_id"])
        suggestions = _survivors(algorithm, self, context["ti"]) if self.pairs else algorithm.initial(self.bracket)
        part = suggestions[self.first : self.first + self.count]
        self.log.info("Bracket %d, rung %d: %d trials", self.bracket, self.rung, len(part))
        return [suggestion.to_json() for suggestion in part]


def _survivors(algorithm: Hyperband, task: SuggestRungOperator, ti: RuntimeTaskInstanceProtocol) -> list[Suggestion]:
    results = completed(task.sweep, gather(ti, task.pairs))
    return algorithm.promote(task.bracket, task.rung - 1, results)


class HalvingOperator(BaseBranchOperator):
    """Ranks a rung; follows the next rung with the survivors as its result, or ends the bracket.

    It runs whatever happened to the trials: a failed trial never blocks its rung. When nothing survives it skips all
    that is left of the bracket in one call, and says why in its log.

    Args:
        sweep: The sweep.
        bracket: The bracket.
        rung: The rung that is finished.
        pairs: Id of each task that suggested the rung, with the id of the mapped task of its trials.

    Attributes:
        followers: Ids of the tasks directly after this one.
        later: Ids of all tasks of the bracket after this one.
    """

    ui_color = "#f2dcdb"

    def __init__(
        self, *, sweep: Sweep, bracket: int, rung: int, pairs: Sequence[tuple[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self.bracket = bracket
        self.rung = rung
        self.pairs = pairs
        self.followers: list[str] = []
        self.later: list[str] = []

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Branch, and return the survivors' next trials as JSON objects."""
        skip_if_stopped(context)
        algorithm = _hyperband(self.sweep, context["run_id"])
        ti = context["ti"]
        results = completed(self.sweep, gather(ti, self.pairs))
        survivors = algorithm.promote(self.bracket, self.rung, results)
        valued = sum(result.value is not None for result in results)
        self.log.info(
            "Bracket %d, rung %d: %d of %d trials have a value, %d go on",
            self.bracket,
            self.rung,
            valued,
            len(results),
            len(survivors),
        )
        if not survivors:
            self.log.warning("Bracket %d ends at rung %d: no trial has a value", self.bracket, self.rung)
            dag = ti.task.dag
            # Raises what tells Airflow to skip them all at once; this task succeeds.
            self.skip(ti, [dag.get_task(task_id) for task_id in self.later])
        for survivor in survivors:
            self.log.info("%s", survivor.label)
        self.do_branch(context, self.followers)
        return [survivor.to_json() for survivor in survivors]
