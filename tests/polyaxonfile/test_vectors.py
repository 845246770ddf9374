"""Polyaxon's own verdict on ``hptuning`` sections, recorded from polyaxon-schemas 0.6.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_hptuning.errors import PolyaxonfileError
from airflow_hptuning.polyaxonfile.parser import parse_text

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "polyaxon" / "validation_vectors.json"

_NO_MATRIX = "refused at once; Polyaxon failed when the group was created"
_BO_TAKES_ALL = "bo takes every kind of parameter; the documented example must run"
DEVIATIONS = {
    "{}": _NO_MATRIX,
    "{matrix: {}}": _NO_MATRIX,
    "{concurrency: 2}": _NO_MATRIX,
    "{matrix: {x: {values: [1,2]}}, random_search: {}}": "refused at once; Polyaxon failed at run time",
    "{matrix: {x: {values: [1,2]}}, concurrency: null}": "refused at once; Polyaxon raised a TypeError at run time",
    "{matrix: {x: {normal: [0,1]}}, bo: {n_initial_trials: 2, n_iterations: 5, metric: {name: loss}}}": _BO_TAKES_ALL,
    "{matrix: {x: {pvalues: [[a,0.5],[b,0.4]]}}, bo: {n_initial_trials: 2, n_iterations: 5, metric: {name: loss}}}": (
        _BO_TAKES_ALL
    ),
    "{matrix: {x: {quniform: [0,1,0.1]}}, bo: {n_initial_trials: 2, n_iterations: 5, metric: {name: loss}}}": (
        _BO_TAKES_ALL
    ),
    "{matrix: {x: {values: [1,2]}}, early_stopping: [{metric: loss}]}": "a goal needs a value; Polyaxon's query failed",
    "{matrix: {x: {values: [1,2]}}, early_stopping: [{metric: loss, value: 0.1, higher: true}]}": (
        "the older spelling is migrated with a warning"
    ),
    "{matrix: {x: {values: [1,2]}}, early_stopping: [{metric: loss, value: 0.1, policy: all}]}": (
        "the older spelling never had an effect and is ignored with a warning"
    ),
    "{matrix: {x: {values: [1,2]}}, early_stopping: [{metric: loss, policy: {kind: truncation, percent: 500,"
    " evaluation_interval: 1}}]}": "a percentage is less than 100; Polyaxon did not look",
}


def vectors() -> list[dict[str, object]]:
    """All recorded sections; none where the file is not at hand."""
    return list(json.loads(VECTORS.read_text())["hptuning"]) if VECTORS.exists() else []


def verdict(section: str) -> tuple[object, ...]:
    """What we say of a section, in the terms of the recording."""
    try:
        spec = parse_text(f"version: 1\nkind: group\nrun: {{cmd: echo}}\nhptuning: {section}\n")
    except PolyaxonfileError:
        return (False,)
    return (True, spec.search, spec.concurrency, spec.seed)


def test_verdicts_agree_but_for_the_deviations() -> None:
    """Accepted or refused, algorithm, concurrency and seed; a deviation that is none any more fails too."""
    if not VECTORS.exists():
        pytest.skip(f"the vectors are not here: {VECTORS}")
    differing = set()
    for vector in vectors():
        section = str(vector["hptuning"])
        details = (vector.get("search_algorithm"), vector.get("concurrency"), vector.get("seed"))
        if verdict(section) != ((True, *details) if vector["ok"] else (False,)):
            differing.add(section)
    assert differing == set(DEVIATIONS)
