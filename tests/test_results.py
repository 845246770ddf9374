"""Tests of ranking, summary, leaderboard and export."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.results import leaderboard, rank, ranked_value, summarise, to_csv, to_json
from airflow_hptuning.trials import Direction, Failure, FailureClass, Metric, TrialRecord, TrialState

LOSS = Metric("loss", Direction.MINIMIZE)
ACCURACY = Metric("accuracy", Direction.MAXIMIZE)


def trial(number: int, value: float | None = None, **fields: Any) -> TrialRecord:
    """Make a record; with a value it reports it as loss, best loss half of it."""
    metrics = {} if value is None else {"loss": value}
    defaults: dict[str, Any] = {
        "params": {"lr": number / 10},
        "state": TrialState.SUCCEEDED,
        "metrics": metrics,
        "best": {name: one / 2 for name, one in metrics.items()},
        "started": 100.0 + number,
        "ended": 110.0 + number,
    }
    return TrialRecord(number, **defaults | fields)


def failed(number: int, kind: FailureClass = FailureClass.USER_CODE, value: float | None = None) -> TrialRecord:
    """Make the record of a failed trial."""
    return trial(number, value, state=TrialState.FAILED, failure=Failure(kind, f"reason {number}"))


RECORDS = [
    trial(0, 3.0),
    failed(1, value=0.0),
    trial(2, 1.0),
    trial(3),
    trial(4, math.nan),
    trial(5, 2.0, state=TrialState.STOPPED),
    trial(6, 1.0),
    trial(7, 0.5, state=TrialState.RUNNING),
    trial(8, state=TrialState.SKIPPED),
]


def test_rank() -> None:
    """Values in order, ties by number; failed, missing, NaN and unfinished last, by number."""
    assert [record.trial for record in rank(RECORDS, LOSS)] == [2, 6, 5, 0, 1, 3, 4, 7, 8]


def test_rank_does_not_depend_on_the_order() -> None:
    """Records come from tasks in any order."""
    shuffled = random.Random(1).sample(RECORDS, len(RECORDS))  # noqa: S311 - a test is no secret
    assert rank(shuffled, LOSS) == rank(RECORDS, LOSS)


def test_rank_without_objective_goes_by_number() -> None:
    """With nothing to rank by, the order of the sweep is kept."""
    assert [record.trial for record in rank(RECORDS[::-1], None)] == list(range(9))


@given(st.lists(st.floats() | st.none(), max_size=20))
def test_maximising_is_minimising_the_opposite(values: list[float | None]) -> None:
    """The direction mirrors the ranking and nothing else."""
    plain = [trial(n, v) for n, v in enumerate(values)]
    opposite = [trial(n, None if v is None else -v) for n, v in enumerate(values)]
    up = Metric("loss", Direction.MAXIMIZE)
    assert [r.trial for r in rank(plain, LOSS)] == [r.trial for r in rank(opposite, up)]


def test_mode_best_ranks_by_the_best_value() -> None:
    """The best value of a trial counts where the file says so."""
    records = [trial(0, 1.0, best={"loss": 0.9}), trial(1, 2.0, best={"loss": 0.1})]
    assert [record.trial for record in rank(records, LOSS, "best")] == [1, 0]
    assert ranked_value(records[1], LOSS, "best") == 0.1


def test_summary() -> None:
    """The summary holds the best trial, the counts, one example per failure, and the times."""
    summary = summarise([*RECORDS, failed(9), failed(10, FailureClass.OOM)], LOSS, started=90.0, ended=190.0)
    assert summary["best"]["trial"] == 2
    assert summary["best"]["value"] == 1.0
    assert summary["best"]["params"] == {"lr": 0.2}
    assert summary["best"]["config_id"] == RECORDS[2].config_id
    assert summary["reason"] is None
    assert (summary["metric"], summary["direction"], summary["mode"]) == ("loss", "minimize", "last")
    assert summary["trials"] == 11
    assert summary["states"] == {"running": 1, "succeeded": 5, "failed": 3, "stopped": 1, "skipped": 1}
    assert summary["failures"] == {
        "user_code": {"count": 2, "trial": 1, "example": "reason 1"},
        "oom": {"count": 1, "trial": 10, "example": "reason 10"},
    }
    assert summary["wall_seconds"] == 100.0
    assert summary["trial_seconds"] == 110.0
    json.dumps(summary, allow_nan=False)


def test_summary_takes_its_times_from_the_trials() -> None:
    """Without times of the run, those of the first and the last trial serve."""
    summary = summarise(RECORDS, LOSS)
    assert (summary["started"], summary["ended"], summary["wall_seconds"]) == (100.0, 118.0, 18.0)


@pytest.mark.parametrize(
    ("records", "objective", "reason"),
    [
        ([], LOSS, "there are no trials"),
        ([failed(0)], LOSS, "none of the 1 trials ended well"),
        ([trial(0), failed(1)], LOSS, "none of the 1 trials that ended well has a finite value of loss"),
        ([trial(0, 1.0)], None, "the file names no metric to rank by"),
    ],
)
def test_summary_says_why_there_is_no_best(
    records: list[TrialRecord],
    objective: Metric | None,
    reason: str,
) -> None:
    """A missing best trial is explained."""
    summary = summarise(records, objective)
    assert summary["best"] is None
    assert summary["reason"] == reason


def test_leaderboard() -> None:
    """The table is aligned, marks what did not simply succeed, and says how many more there are."""
    assert leaderboard(RECORDS, LOSS, limit=5).splitlines() == [
        "#  trial  loss  state               lr   seconds",
        "1  2      1     succeeded           0.2  10",
        "2  6      1     succeeded           0.6  10",
        "3  5      2     stopped             0.5  10",
        "4  0      3     succeeded           0    10",
        "5  1      -     failed (user_code)  0.1  10",
        "… and 4 more",
    ]


def test_leaderboard_cuts_long_values_and_stays_aligned() -> None:
    """Long, wide and unprintable values keep the columns where they are."""
    texts = ["short", "x" * 100, "漢字" * 20, "a\nb\tc", "e\u0301" * 3]
    records = [trial(n, float(n), params={"p": text, "z": 1}, resource=9) for n, text in enumerate(texts)]
    lines = leaderboard(records, LOSS).splitlines()
    assert len(lines) == 6
    assert "x" * 23 + "…" in lines[2]
    assert "a b c" in lines[4]
    assert lines[0].split() == ["#", "trial", "loss", "state", "resource", "p", "z", "seconds"]
    assert lines[1].index("  1  10") == lines[2].index("  1  10")


def test_leaderboard_without_trials() -> None:
    """Nothing to show is said."""
    assert leaderboard([], LOSS) == "no trials"


def read(text: str) -> list[dict[str, str]]:
    """Read CSV back."""
    return list(csv.DictReader(io.StringIO(text)))


def test_csv() -> None:
    """One line per trial with parameters and metrics in columns of their own."""
    records = [trial(0, 3.5, params={"lr": 0.1, "act": "relu"}), failed(1, FailureClass.OOM), trial(2, -1e-05)]
    first, second, third = read(to_csv(records))
    assert (first["trial"], first["params.lr"], first["params.act"], first["metrics.loss"]) == (
        "0",
        "0.1",
        "relu",
        "3.5",
    )
    assert (second["state"], second["failure_class"], second["metrics.loss"]) == ("failed", "oom", "")
    assert third["metrics.loss"] == "-1e-05"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_csv_runs_no_formula(text: str) -> None:
    """Text that a spreadsheet would run is quoted, wherever it comes from; numbers are not touched."""
    (row,) = read(to_csv([trial(0, params={"p": text, "n": -1, "f": -0.5}, note=text)]))
    assert row["params.p"] == "'" + text
    assert row["note"] == "'" + text
    assert (row["params.n"], row["params.f"]) == ("-1", "-0.5")


def test_csv_holds_other_values_as_json() -> None:
    """Lists, mappings, booleans and None have one form each."""
    (row,) = read(to_csv([trial(0, params={"l": [1, "a"], "m": {"k": None}, "b": True, "n": None, "f": math.inf})]))
    assert row["params.l"] == '[1, "a"]'
    assert row["params.m"] == '{"k": null}'
    assert (row["params.b"], row["params.n"], row["params.f"]) == ("true", "", "inf")


def test_json_is_strict_and_reads_back() -> None:
    """The export is JSON for every reader, and the records come back from it."""
    records = [trial(0, 1.0), failed(1), trial(2, params={"x": math.inf, "y": (1, math.nan)})]
    document = json.loads(to_json(records, summarise(records, LOSS)), parse_constant=pytest.fail)
    assert document["summary"]["best"]["trial"] == 0
    assert TrialRecord.from_json(document["trials"][0]) == records[0]
    assert TrialRecord.from_json(document["trials"][1]) == records[1]
    assert document["trials"][2]["params"] == {"x": "inf", "y": [1, "nan"]}
    assert "summary" not in json.loads(to_json(records))


def test_ten_thousand_records() -> None:
    """A large sweep is ranked, summarised, shown and exported as a whole."""
    rng = random.Random(0)  # noqa: S311 - a test is no secret
    records = [trial(n, rng.random()) for n in range(10_000)]
    best = min(records, key=lambda record: record.metrics["loss"] or 0)
    assert summarise(records, LOSS)["best"]["trial"] == best.trial
    assert leaderboard(records, LOSS).endswith("… and 9990 more")
    assert to_csv(records).count("\n") == 10_001
    assert len(json.loads(to_json(records))["trials"]) == 10_000
