"""Results: ranking, summary, leaderboard and export of trial records; pure functions of the records.

The same ranking serves every place that shows or uses one: trials that ended with a value first, the best of
them first; then all others (failed, without the metric, NaN, not finished); ties by trial number. A trial
that early stopping ended counts with the value it had reached.
"""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_hptuning.trials import Metric, TrialRecord, TrialState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_RANKED_STATES = frozenset({TrialState.SUCCEEDED, TrialState.STOPPED})
_CELL_WIDTH = 24
"""Columns that a cell of the leaderboard takes at most."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_FIXED_COLUMNS = (
    "trial",
    "config_id",
    "state",
    "bracket",
    "rung",
    "resource",
    "attempt",
    "started",
    "ended",
    "duration",
    "failure_class",
    "failure_reason",
    "note",
)


def ranked_value(record: TrialRecord, objective: Metric | None, mode: str = "last") -> float | None:
    """Return the value by which a record is ranked; None when it has none or is not entitled to one.

    Args:
        record: The record.
        objective: The metric that ranks; None ranks nothing.
        mode: ``last`` or ``best`` value of the trial.
    """
    if objective is None or record.state not in _RANKED_STATES:
        return None
    return record.value_of(objective.name, mode)


def rank(
    records: Iterable[TrialRecord],
    objective: Metric | None,
    mode: str = "last",
) -> list[TrialRecord]:
    """Return the records, best first.

    Args:
        records: The records in any order.
        objective: The metric that ranks; without one the order is that of the trial numbers.
        mode: ``last`` or ``best`` value of each trial.
    """

    def key(record: TrialRecord) -> tuple[bool, float, int]:
        value = ranked_value(record, objective, mode)
        if value is None or objective is None:
            return (True, 0.0, record.trial)
        return (False, -objective.direction.sign * value, record.trial)

    return sorted(records, key=key)


def summarise(
    records: Iterable[TrialRecord],
    objective: Metric | None,
    mode: str = "last",
    *,
    started: float | None = None,
    ended: float | None = None,
    stopped: str | None = None,
) -> dict[str, Any]:
    """Return what a sweep came to, as a JSON object.

    Args:
        records: All records of the sweep.
        objective: The metric that ranks.
        mode: ``last`` or ``best`` value of each trial.
        started: When the sweep began (seconds since the epoch); default: its first trial.
        ended: When it ended; default: the end of its last trial.
        stopped: Why the sweep was ended before its time, or None.
    """
    ordered = rank(records, objective, mode)
    value = ranked_value(ordered[0], objective, mode) if ordered else None
    begin = min((r.started for r in ordered if r.started is not None), default=None) if started is None else started
    end = max((r.ended for r in ordered if r.ended is not None), default=None) if ended is None else ended
    states = Counter(record.state for record in ordered)
    return {
        "metric": objective.name if objective else None,
        "direction": objective.direction.value if objective else None,
        "mode": mode,
        "best": None if value is None else _best(ordered[0], value),
        "reason": _why_no_best(ordered, objective) if value is None else None,
        "stopped": stopped,
        "trials": len(ordered),
        "states": {state.value: states[state] for state in TrialState if states[state]},
        "failures": _failures(ordered),
        "started": begin,
        "ended": end,
        "wall_seconds": None if begin is None or end is None else max(0.0, end - begin),
        "trial_seconds": math.fsum(record.duration or 0.0 for record in ordered),
    }


def leaderboard(
    records: Iterable[TrialRecord],
    objective: Metric | None,
    mode: str = "last",
    limit: int = 10,
) -> str:
    """Return the best trials as a text table with aligned columns.

    Args:
        records: The records in any order.
        objective: The metric that ranks.
        mode: ``last`` or ``best`` value of each trial.
        limit: Number of trials to show; how many more there are is said below the table.
    """
    ordered = rank(records, objective, mode)
    shown = ordered[:limit]
    if not shown:
        return "no trials"
    params = list(dict.fromkeys(name for record in shown for name in record.params))
    with_resource = any(record.resource is not None for record in shown)
    metric = objective.name if objective else "value"
    header = ["#", "trial", metric, "state", *(["resource"] if with_resource else []), *params, "seconds"]
    rows = [
        [
            str(place),
            str(record.trial),
            _cell(ranked_value(record, objective, mode)),
            _state(record),
            *([_cell(record.resource)] if with_resource else []),
            *(_cell(record.params.get(name)) for name in params),
            _cell(None if record.duration is None else round(record.duration, 1)),
        ]
        for place, record in enumerate(shown, start=1)
    ]
    more = [f"… and {len(ordered) - len(shown)} more"] if len(ordered) > len(shown) else []
    return "\n".join([*_aligned([[_cut(name) for name in header], *rows]), *more])


def to_csv(records: Iterable[TrialRecord]) -> str:
    """Return the records as CSV, one line each, in the order given, with a line of column names.

    Parameters are columns ``params.NAME``, metrics ``metrics.NAME`` (last) and ``best.NAME``. Text that a
    spreadsheet would run as a formula gets a leading apostrophe; numbers are left alone.
    """
    rows = list(records)
    groups = {
        "params": list(dict.fromkeys(name for record in rows for name in record.params)),
        "metrics": list(dict.fromkeys(name for record in rows for name in record.metrics)),
        "best": list(dict.fromkeys(name for record in rows for name in record.best)),
    }
    text = io.StringIO()
    # As RFC 4180 has it; with a lone line feed the module would leave carriage returns unquoted.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*_FIXED_COLUMNS, *(f"{group}.{name}" for group, names in groups.items() for name in names)])
    for record in rows:
        cells = [*_fixed(record)]
        for group, names in groups.items():
            values: Mapping[str, Any] = getattr(record, group)
            cells.extend(values.get(name) for name in names)
        writer.writerow([_csv(cell) for cell in cells])
    return text.getvalue()


def to_json(records: Iterable[TrialRecord], summary: Mapping[str, Any] | None = None) -> str:
    """Return the records, and the summary if there is one, as one JSON document with a line per record.

    The document is strict JSON: a parameter that is NaN or infinite is written as text.
    """
    head = "{" if summary is None else f'{{"summary": {_dumps(dict(summary))}, '
    trials = ",\n".join(_dumps(record.to_json()) for record in records)
    return f'{head}"trials": [\n{trials}\n]}}\n'


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):
        # Looked through only when needed: the curves make this the largest part of an export.
        return json.dumps(_strict(value), allow_nan=False, ensure_ascii=False)


def _best(record: TrialRecord, value: float) -> dict[str, Any]:
    return {
        "trial": record.trial,
        "config_id": record.config_id,
        "params": _strict(dict(record.params)),
        "value": value,
        "resource": record.resource,
        "bracket": record.bracket,
        "rung": record.rung,
        "state": record.state.value,
        "metrics": dict(record.metrics),
        "info": _strict(dict(record.info)),
    }


def _why_no_best(records: Sequence[TrialRecord], objective: Metric | None) -> str:
    if objective is None:
        return "the file names no metric to rank by"
    if not records:
        return "there are no trials"
    finished = [record for record in records if record.state in _RANKED_STATES]
    if finished:
        return f"none of the {len(finished)} trials that ended well has a finite value of {objective.name}"
    return f"none of the {len(records)} trials ended well"


def _failures(records: Iterable[TrialRecord]) -> dict[str, dict[str, Any]]:
    """Count the failures by class, with the first trial of each as its example."""
    found: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record.trial):
        if record.failure is not None:
            example = {"count": 0, "trial": record.trial, "example": record.failure.reason}
            found.setdefault(record.failure.failure_class.value, example)["count"] += 1
    return found


def _state(record: TrialRecord) -> str:
    if record.failure is None:
        return record.state.value
    return f"{record.state.value} ({record.failure.failure_class.value})"


def _fixed(record: TrialRecord) -> list[Any]:
    failure = record.failure
    return [
        record.trial,
        record.config_id,
        record.state.value,
        record.bracket,
        record.rung,
        record.resource,
        record.attempt,
        record.started,
        record.ended,
        record.duration,
        failure.failure_class.value if failure else None,
        failure.reason if failure else None,
        record.note,
    ]


def _csv(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else _dumps(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(name): _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return _cut(f"{value:.6g}" if isinstance(value, float) else str(value))


def _cut(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    if _width(printable) <= _CELL_WIDTH:
        return printable
    while _width(printable) >= _CELL_WIDTH:
        printable = printable[: _CELL_WIDTH - 1] if len(printable) >= _CELL_WIDTH else printable[:-1]
    return printable + "…"


def _width(text: str) -> int:
    """Count the columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(bool(unicodedata.combining(character)) for character in text)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
