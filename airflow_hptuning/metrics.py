r"""Metrics: lines of a trial's output become observations, and observations become what a record keeps.

A line is read in this order; the first that finds something on a piece of the line wins:

1. ``airflow.metrics.pattern``, if the file has one: a regular expression with the group ``value`` and, if it
   likes, ``name`` and ``step``;
2. a JSON object that ends the line, such as ``{"step": 3, "loss": 0.41}``, plus the pairs in the text before
   it;
3. pairs of the metrics that the file names: ``loss=0.41``, ``'loss': 0.41``, ``accuracy: 93.5%``.

Names are compared exactly. The scripts that print are not ours, so a line may hold anything: escape codes,
progress bars redrawn with carriage returns, megabytes without an end. What is examined is bounded, and no
pattern of ours backtracks (they use the possessive quantifiers of Python 3.11).
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from airflow_hptuning.trials import Direction, Point

CURVE_POINTS = 200
"""Most points that a curve keeps."""

_EXAMINED = 64 * 1024
"""Characters of a long line that are examined at its head, and again at its tail."""

_EXAMINED_BY_PATTERN = 4 * 1024
"""As above for a pattern of the user, which may take quadratic time."""

_MOST_METRICS = 100
"""Metrics that a log keeps: a script that reports every layer of a network must not fill the database."""

_MOST_OBJECTS = 16
"""Opening braces of a line that are tried as the beginning of a JSON object."""

_LONGEST_NAME = 200

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]?|\][^\x07\x1b]*+(?:\x07|\x1b\\)?|[@-Z\\^_])?")
_REDRAWS = re.compile(r"[\r\n\x08]++")
_STEP_KEYS = ("step", "global_step", "epoch")
_SIGNED = r"[+-]?+"
_DIGITS = r"(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+"
_NUMBER = rf"{_SIGNED}(?:{_DIGITS}|(?i:nan|inf(?:inity)?+))"
# print() of a dict of NumPy 2 shows np.float64(0.41), of a tensor tensor(0.41, device=...).
_WRAPPER = r"(?:(?:np\.|numpy\.)?+(?:float|int)[0-9]{0,3}+\(|(?:np\.)?+array\(|(?:tf\.)?+[tT]ensor\()?+"
# No number goes on with these: 1.2.3 is a version, 9913/10000 a count, 0,41 and 1,234 are ambiguous, 12:30 a
# time.
_NO_NUMBER = r"(?!\w|[.,/:][0-9])"
_STEP = re.compile(
    r"(?<![\w./-])(?P<name>step|global_step|epoch)[\"']?+[ \t]{0,8}+[:=]?+[ \t]{0,8}+[\[#(]?+"
    r"(?P<value>[0-9]++(?:\.[0-9]++)?+)(?![\w])",
    re.IGNORECASE,
)
_DECODER = json.JSONDecoder(parse_int=float)


@frozen
class Observation:
    """One value of one metric, as a trial reported it.

    Attributes:
        name: Name of the metric.
        step: Where on the x-axis it belongs; None when the trial did not say.
        value: The value; may be NaN or infinite.
    """

    name: str
    step: float | None
    value: float


class MetricParser:
    """Finds the metrics in lines of output.

    Args:
        names: Metrics that the file names; they are recognised in plain text as well as in JSON.
        pattern: The user's own regular expression with the named group ``value``, and optionally ``name``
            (needed unless exactly one metric is known) and ``step``.

    Raises:
        ValueError: The pattern is not a regular expression, or lacks a group that it needs.
    """

    def __init__(self, names: Collection[str] = (), pattern: str | None = None) -> None:
        self._names = frozenset(name for name in names if name)
        self._pairs = _pairs(self._names) if self._names and pattern is None else None
        self._pattern = None if pattern is None else _own(pattern, self._names)
        self._only = next(iter(self._names)) if len(self._names) == 1 else None

    def parse(self, line: str) -> list[Observation]:
        """Return the observations of one line, in their order; never raises.

        Args:
            line: A line of output with or without its end. Parts that a carriage return separates are read
                apart.
        """
        found: list[Observation] = []
        for piece in _pieces(line):
            found.extend(self._of_pattern(piece) or self._of_json_and_pairs(piece))
        return found

    def _of_json_and_pairs(self, piece: str) -> list[Observation]:
        start, data = _object_at_end(piece)
        if data is None:
            return self._of_pairs(piece)
        return [*self._of_pairs(piece[:start]), *self._of_object(data, piece[:start])]

    def _of_object(self, data: Mapping[str, Any], before: str) -> list[Observation]:
        values = {
            name: value
            for name, value in data.items()
            if isinstance(value, float) and name and len(name) <= _LONGEST_NAME
        }
        steps = [values[key] for key in _STEP_KEYS if key in values and math.isfinite(values[key])]
        step = steps[0] if steps else _step(before)
        return [
            Observation(name, step, value) for name, value in values.items() if name != "step" or name in self._names
        ]

    def _of_pairs(self, piece: str) -> list[Observation]:
        if self._pairs is None:
            return []
        found = [(match["name"], float(match["value"])) for match in self._pairs.finditer(piece)]
        if not found:
            return []
        step = _step(piece)
        return [Observation(name, step, value) for name, value in found]

    def _of_pattern(self, piece: str) -> list[Observation]:
        if self._pattern is None:
            return []
        examined = _bounded(piece, _EXAMINED_BY_PATTERN)
        found = []
        for match in self._pattern.finditer(examined):
            groups = match.groupdict()
            name, value = groups.get("name") or self._only, _number(groups["value"])
            if name and value is not None and len(name) <= _LONGEST_NAME:
                step = _number(groups.get("step"))
                known = step is not None and math.isfinite(step)
                found.append(Observation(name.strip(), step if known else _step(examined), value))
        return found


def describe(names: Collection[str], pattern: str | None) -> str:
    """Say what a parser of these arguments looks for, for the message that nothing matched.

    Args:
        names: Metrics that the file names.
        pattern: The user's own regular expression.
    """
    name = min(names, default="loss")
    example = f'a JSON object such as {{"{name}": 0.41}} at the end of a line'
    if pattern is not None:
        return f"the pattern {pattern!r} of airflow.metrics.pattern, or {example}"
    if not names:
        return example
    listed = ", ".join(sorted(names))
    return f"{example}, or {name}=0.41, or {name}: 0.41 (names in plain text: {listed}; case matters)"


class MetricLog:
    """What is kept of a trial's observations: last and best values, and a bounded curve of each metric.

    Args:
        directions: Metrics whose better direction is known; the others have no best value.

    The same observations give the same log. NaN and infinite values are kept as None, and are never the best.
    """

    def __init__(self, directions: Mapping[str, Direction] | None = None) -> None:
        self._directions = dict(directions or {})
        self._last: dict[str, float | None] = {}
        self._best: dict[str, float] = {}
        self._curves: dict[str, _Curve] = {}

    def add(self, observation: Observation) -> None:
        """Take in one observation; ignored when its metric is one too many."""
        name = observation.name
        if name not in self._last and name not in self._directions and len(self._last) >= _MOST_METRICS:
            return
        value = observation.value if math.isfinite(observation.value) else None
        self._last[name] = value
        self._curves.setdefault(name, _Curve()).add((observation.step, value))
        if value is not None:
            self._improve(name, value)

    def restore(self, text: str) -> None:
        """Take in the summary that ``tracking`` keeps where the lines themselves may get lost.

        Args:
            text: Content of the file named by ``HPTUNING_TERMINATION_LOG``; anything else is ignored, and so
                is what follows the summary (the trial may have died while it rewrote a longer one).
        """
        try:
            data = _DECODER.raw_decode(text.strip())[0]
        except (ValueError, RecursionError):
            return
        metrics = data.get("metrics") if isinstance(data, dict) and data.get("hptuning") == 1 else None
        for name, values in metrics.items() if isinstance(metrics, dict) else ():
            self._restore(name, values, data.get("step"))

    def _restore(self, name: str, values: Any, step: Any) -> None:
        if not isinstance(values, list) or not values:
            return
        last, *extremes = (value if _is_finite(value) else None for value in values)
        if name not in self._last or last != self._last[name]:
            self.add(Observation(name, step if _is_finite(step) else None, math.nan if last is None else last))
        for value in extremes:
            if value is not None:
                self._improve(name, value)

    def _improve(self, name: str, value: float) -> None:
        direction = self._directions.get(name)
        if direction is None:
            return
        if name not in self._best or direction.sign * value > direction.sign * self._best[name]:
            self._best[name] = value

    @property
    def last(self) -> dict[str, float | None]:
        """Last value of each metric; None where it was NaN or infinite."""
        return dict(self._last)

    @property
    def best(self) -> dict[str, float]:
        """Best finite value of each metric whose direction is known."""
        return dict(self._best)

    @property
    def curve(self) -> dict[str, tuple[Point, ...]]:
        """At most ``CURVE_POINTS`` points per metric in the order of arrival, first and last among them."""
        return {name: curve.points for name, curve in self._curves.items()}


class _Curve:
    """Every n-th point of a stream, with n doubling whenever there are too many."""

    def __init__(self) -> None:
        self._kept: list[Point] = []
        self._stride = 1
        self._count = 0
        self._latest: Point | None = None

    def add(self, point: Point) -> None:
        if self._count % self._stride == 0:
            self._kept.append(point)
            self._latest = None
            if len(self._kept) == CURVE_POINTS:
                self._thin()
        else:
            self._latest = point
        self._count += 1

    def _thin(self) -> None:
        self._latest = self._kept[-1]
        self._kept = self._kept[::2]
        self._stride *= 2

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(self._kept) if self._latest is None else (*self._kept, self._latest)


def _pieces(line: str) -> Iterator[str]:
    text = _bounded(line, _EXAMINED)
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    return (piece for piece in _REDRAWS.split(text) if piece)


def _bounded(text: str, size: int) -> str:
    # The cut separates the parts as a redraw does, so that no number is made of two halves.
    return text if len(text) <= 2 * size else f"{text[:size]}\r{text[-size:]}"


def _object_at_end(piece: str) -> tuple[int, dict[str, Any] | None]:
    text = piece.rstrip()
    if not text.endswith("}"):
        return 0, None
    start = -1
    for _ in range(_MOST_OBJECTS):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            data, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if end == len(text):
            return start, data
    return 0, None


def _step(text: str) -> float | None:
    found = {match["name"].lower(): float(match["value"]) for match in _STEP.finditer(text)}
    return next((found[key] for key in _STEP_KEYS if key in found), None)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.strip().rstrip("%"))
    except ValueError:
        return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _pairs(names: Collection[str]) -> re.Pattern[str]:
    # The longest first: an alternation takes the first that fits.
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    return re.compile(
        rf"(?<![\w./@-])[\"']?+(?P<name>{alternatives})[\"']?+[ \t]{{0,16}}+[:=][ \t]{{0,16}}+{_WRAPPER}"
        rf"(?P<value>{_NUMBER}){_NO_NUMBER}",
    )


def _own(pattern: str, names: Collection[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern is not a regular expression: {error}") from error
    if "value" not in compiled.groupindex:
        raise ValueError("the pattern needs a group named value: (?P<value>...)")
    if "name" not in compiled.groupindex and len(names) != 1:
        raise ValueError(
            "the pattern needs a group named name: (?P<name>...); it can do without only where exactly one metric"
            " is known",
        )
    return compiled
