"""Tests of the metrics found in output, and of what is kept of them."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning import tracking
from airflow_hptuning.metrics import CURVE_POINTS, MetricLog, MetricParser, Observation, describe
from airflow_hptuning.trials import Direction

NAMES = ("loss", "accuracy", "val/f1")
NAN = math.nan


def found(line: str, names: tuple[str, ...] = NAMES, pattern: str | None = None) -> list[tuple[object, ...]]:
    """Parse a line into plain tuples, so that a table can hold them."""
    return [(o.name, o.step, o.value) for o in MetricParser(names, pattern).parse(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"step": 3, "loss": 0.41}', [("loss", 3, 0.41)]),
        ('{"loss": 1, "other": 2.5}', [("loss", None, 1.0), ("other", None, 2.5)]),
        ('INFO root: {"step": 3, "loss": 0.41}  \n', [("loss", 3, 0.41)]),
        ('{not json} {"loss": 0.41}', [("loss", None, 0.41)]),
        ('{"loss": 0.41, "done": true, "note": "x", "deep": {"loss": 9}, "l": [1], "n": null}', [("loss", None, 0.41)]),
        ('{"metrics": {"loss": 0.41}}', []),
        ('{"loss": Infinity, "accuracy": -Infinity}', [("loss", None, math.inf), ("accuracy", None, -math.inf)]),
        ('{"epoch": 4, "loss": 0.41}', [("epoch", 4, 4.0), ("loss", 4, 0.41)]),
        ('{"step": 7, "epoch": 4, "loss": 0.41}', [("epoch", 7, 4.0), ("loss", 7, 0.41)]),
        ('{"step": "x", "loss": 0.41}', [("loss", None, 0.41)]),
        ('{"step": true, "loss": 0.41}', [("loss", None, 0.41)]),
        ('{"step": NaN, "loss": 0.41}', [("loss", None, 0.41)]),
        ('{"": 1}', []),
        ('{"loss": 0.41', [("loss", None, 0.41)]),
        ('epoch 2 loss=0.5 {"lr": 0.1}', [("loss", 2, 0.5), ("lr", 2, 0.1)]),
        ("{}", []),
        ("[1, 2]", []),
        ('{"loss": 1e999}', [("loss", None, math.inf)]),
        ('{"loss": ' + "1" * 5000 + "}", [("loss", None, math.inf)]),
    ],
)
def test_json(line: str, expected: list[tuple[object, ...]]) -> None:
    """A JSON object that ends a line reports its numbers."""
    assert found(line) == expected


def test_nan_in_json() -> None:
    """NaN is a value that a trial may report."""
    (observation,) = MetricParser().parse('{"loss": NaN}')
    assert math.isnan(observation.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epoch 3 loss=0.41, accuracy: 93.5%", [("loss", 3, 0.41), ("accuracy", 3, 93.5)]),
        ("step=3 loss=0.41", [("loss", 3, 0.41)]),
        ("epoch=3 loss=0.41 step=40", [("loss", 40, 0.41)]),
        ("Epoch [3/10], loss: 0.41", [("loss", 3, 0.41)]),
        ("global_step: 12 - loss: 0.41", [("loss", 12, 0.41)]),
        ("12/12 - 1s - loss: 0.41 - accuracy: 0.93", [("loss", None, 0.41), ("accuracy", None, 0.93)]),
        ("loss=1e-3", [("loss", None, 1e-3)]),
        ("loss = -1.5E+2", [("loss", None, -150.0)]),
        ("loss=.5 accuracy=+1.", [("loss", None, 0.5), ("accuracy", None, 1.0)]),
        ("loss: inf accuracy: -Infinity", [("loss", None, math.inf), ("accuracy", None, -math.inf)]),
        ("{'loss': 0.41, 'epoch': 2.0}", [("loss", 2.0, 0.41)]),
        ("{'loss': np.float64(0.41)}", [("loss", None, 0.41)]),
        ("loss: tensor(0.41, device='cuda:0')", [("loss", None, 0.41)]),
        ("val/f1=0.8", [("val/f1", None, 0.8)]),
        ("The loss=0.41.", [("loss", None, 0.41)]),
        ("loss=0.41,accuracy=0.9", [("loss", None, 0.41), ("accuracy", None, 0.9)]),
        ("loss=0.5 loss=0.4", [("loss", None, 0.5), ("loss", None, 0.4)]),
        ("val_loss=0.41", []),
        ("val/loss=0.41", []),
        ("val-loss=0.41", []),
        ("train.loss=0.41", []),
        ("losses=0.41", []),
        ("loss_2=0.41", []),
        ("Loss=0.41", []),
        ("loss 0.41", []),
        ("loss=nano", []),
        ("loss=0.4x", []),
        ("loss=1.2.3", []),
        ("accuracy: 9913/10000 (99%)", []),
        ("loss=0,41", []),
        ("loss=1,234.5", []),
        ("loss: 12:30:11", []),
        ("loss=0x1F", []),
        ("loss=", []),
        ("other=1", []),
        ("", []),
    ],
)
def test_pairs(line: str, expected: list[tuple[object, ...]]) -> None:
    """Pairs of the metrics that the file names report, and nothing that only looks like one."""
    assert found(line) == expected


def test_a_number_that_is_nan_in_a_pair() -> None:
    """A diverged loss printed as nan is a value."""
    (observation,) = MetricParser(["loss"]).parse("loss: nan")
    assert math.isnan(observation.value)


def test_the_longest_name_wins() -> None:
    """A metric whose name begins like another one is told apart."""
    assert found("loss (val)=2 loss=1", ("loss", "loss (val)")) == [("loss (val)", None, 2), ("loss", None, 1)]


@pytest.mark.parametrize(
    ("pattern", "names", "line", "expected"),
    [
        (r"(?P<name>\w+) is (?P<value>\S+)", NAMES, "loss is 0.41", [("loss", None, 0.41)]),
        (r"Loss: (?P<value>[\d.]+)", ("loss",), "Loss: 0.41", [("loss", None, 0.41)]),
        (r"<(?P<step>\d+)> (?P<name>\w+) (?P<value>\S+)", NAMES, "<7> loss 93%", [("loss", 7, 93.0)]),
        (r"(?P<name>\w+)=(?P<value>\w+)", NAMES, "epoch 2 loss=nil accuracy=1", [("accuracy", 2, 1.0)]),
        (r"(?P<name>\w+)=(?P<value>x)?", NAMES, "loss=", []),
        (r"never (?P<name>\w+)=(?P<value>\w+)", NAMES, "loss=0.41", []),
        (r"never (?P<name>\w+)=(?P<value>\w+)", NAMES, '{"loss": 0.41}', [("loss", None, 0.41)]),
        (r'"(?P<name>\w+)": (?P<value>\d)', NAMES, '{"loss": 1}', [("loss", None, 1.0)]),
    ],
)
def test_own_pattern(
    pattern: str,
    names: tuple[str, ...],
    line: str,
    expected: list[tuple[object, ...]],
) -> None:
    """The user's pattern replaces the pairs; JSON is still understood."""
    assert found(line, names, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "names", "message"),
    [
        ("(", NAMES, "not a regular expression"),
        ("loss", NAMES, "group named value"),
        ("(?P<value>.)", NAMES, "group named name"),
        ("(?P<value>.)", (), "group named name"),
    ],
)
def test_an_unusable_pattern_is_refused(pattern: str, names: tuple[str, ...], message: str) -> None:
    """A pattern that could never report is refused with what it lacks."""
    with pytest.raises(ValueError, match=message):
        MetricParser(names, pattern)


def test_progress_bars_and_colours() -> None:
    """Each state of a redrawn line is read apart, and escape codes do not hide a number."""
    line = "\r 10%|\x1b[32m█\x1b[0m| loss=0.\x1b[1m5\x1b[0m\r 20%|██| loss=0.4\x1b]0;title\x07\x08\x08"
    assert found(line) == [("loss", None, 0.5), ("loss", None, 0.4)]


def test_a_huge_line_is_examined_at_both_ends() -> None:
    """The head and the tail of a line of megabytes are read, and the middle is not."""
    middle = " loss=2 " + "x" * 5_000_000 + " loss=3 "
    line = "loss=1 " + "y" * 200_000 + middle + "z" * 200_000 + ' {"loss": 4}'
    assert found(line) == [("loss", None, 1), ("loss", None, 4)]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "line",
    [
        "loss=" + "1" * 200_000 + "x",
        "loss" * 50_000,
        "loss " * 50_000,
        'loss"' + " " * 200_000 + "=1x",
        "\x1b[" * 60_000,
        "\x1b[" + "0;" * 60_000,
        "\x1b]" * 60_000,
        "{" * 100_000 + "}",
        '{"a":' * 20_000 + "}",
        "{'loss': " * 20_000 + "}",
        "step=" * 40_000 + "loss=1",
        "epoch" + " " * 120_000 + "loss=1",
        "\r" * 120_000,
    ],
)
def test_no_line_takes_long(line: str) -> None:
    """Lines made to provoke backtracking are read at all: with backtracking it would take minutes."""
    MetricParser(NAMES).parse(line)
    MetricParser(NAMES, r"(?P<name>\w+)=(?P<value>[\d.]+)").parse(line)


@given(st.text() | st.text(alphabet='{}[]":,.=% \r\x1b[mlosaccuryeptn0123456789+-', max_size=60))
def test_any_text_is_read(line: str) -> None:
    """No text makes the parser raise, and all it finds has a name."""
    for observation in MetricParser(NAMES).parse(line):
        assert observation.name
        assert isinstance(observation.value, float)


@given(
    st.one_of(st.none(), st.integers(0, 2**40), st.floats(allow_nan=False, allow_infinity=False)),
    st.dictionaries(st.text(min_size=1, max_size=20).filter(lambda name: name != "step"), st.floats(), min_size=1),
    st.sampled_from(["", "epoch done ", "50%|#####     | \r", '{"half": ']),
)
def test_what_tracking_prints_is_read(step: float | None, metrics: dict[str, float], before: str) -> None:
    """Every line of ``tracking.log_metrics`` gives the same numbers back, whatever was printed before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream := io.StringIO())
        patch.setattr(tracking, "_warned", {"not inside a trial of airflow-hptuning; metrics are only printed"})
        tracking.log_metrics(step, **metrics)
    observations = MetricParser().parse(before + stream.getvalue())
    assert {o.name: repr(o.value) for o in observations} == {name: repr(value) for name, value in metrics.items()}
    if step is not None:
        assert {o.step for o in observations} == {float(step)}


def test_describe_says_what_was_looked_for() -> None:
    """The text names the forms and the metrics, or the user's pattern."""
    assert "loss=0.41" in describe(["loss"], None)
    assert "accuracy, loss" in describe(["loss", "accuracy"], None)
    assert "'(?P<value>x)'" in describe(["loss"], "(?P<value>x)")
    assert "JSON" in describe([], None)


def log_of(values: list[float], direction: Direction = Direction.MINIMIZE) -> MetricLog:
    """Make a log of one metric."""
    log = MetricLog({"loss": direction})
    for step, value in enumerate(values):
        log.add(Observation("loss", float(step), value))
    return log


def test_last_and_best() -> None:
    """The last value is the last one; the best one is the best finite one in its direction."""
    log = log_of([3.0, 1.0, NAN, math.inf, 2.0])
    log.add(Observation("other", None, 5.0))
    assert log.last == {"loss": 2.0, "other": 5.0}
    assert log.best == {"loss": 1.0}
    assert log_of([3.0, 1.0], Direction.MAXIMIZE).best == {"loss": 3.0}


def test_values_that_are_no_number_are_kept_as_none() -> None:
    """NaN and infinities are None in what is stored, and never the best."""
    log = log_of([NAN, -math.inf])
    assert log.last == {"loss": None}
    assert log.best == {}
    assert log.curve == {"loss": ((0.0, None), (1.0, None))}


@given(st.integers(1, 3000))
def test_curves_are_bounded(count: int) -> None:
    """A curve has at most 200 points in order, the first and the last among them, and all of a short stream."""
    points = log_of([float(n) for n in range(count)]).curve["loss"]
    assert len(points) <= CURVE_POINTS
    assert points[0] == (0.0, 0.0)
    assert points[-1] == (count - 1.0, count - 1.0)
    assert list(points) == sorted(set(points))
    assert len(points) >= min(count, CURVE_POINTS // 2)


def test_a_million_values_make_a_small_log() -> None:
    """The log does not grow with its input."""
    log = log_of([0.5] * 100_000)
    assert len(log.curve["loss"]) <= CURVE_POINTS


def test_too_many_metrics_are_left_out_but_not_the_named_ones() -> None:
    """A script that reports thousands of metrics fills nothing; those of the file are always kept."""
    log = MetricLog({"loss": Direction.MINIMIZE})
    for number in range(5000):
        log.add(Observation(f"layer{number}", None, 1.0))
    log.add(Observation("loss", None, 1.0))
    assert len(log.last) == 101
    assert log.last["loss"] == 1.0


def test_restore_fills_in_what_was_lost() -> None:
    """The summary beside the log gives last and best values that no line told."""
    log = log_of([3.0])
    log.restore('{"hptuning": 1, "step": 9, "metrics": {"loss": [2.0, 1.0, 4.0], "acc": [null, 0, 1]}} rest')
    assert log.last == {"loss": 2.0, "acc": None}
    assert log.best == {"loss": 1.0}
    assert log.curve["loss"] == ((0.0, 3.0), (9.0, 2.0))


def test_restore_changes_nothing_when_nothing_was_lost() -> None:
    """A summary that agrees with the lines adds no point."""
    log = log_of([3.0])
    log.restore(json.dumps({"hptuning": 1, "step": 0, "metrics": {"loss": [3.0, 3.0, 3.0]}}))
    assert log.curve["loss"] == ((0.0, 3.0),)


@given(
    st.text()
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(
        lambda value: json.dumps({"hptuning": 1, "step": value, "metrics": {"loss": value, "x": [value]}}),
    )
)
def test_restore_takes_any_text(text: str) -> None:
    """Whatever the file holds, nothing is raised."""
    MetricLog({"loss": Direction.MINIMIZE}).restore(text)
