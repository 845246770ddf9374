"""Numbers and the three notations in which a polyaxonfile writes the arguments of a parameter.

``"0:10:2"``, ``[0, 10, 2]`` and ``{start: 0, stop: 10, step: 2}`` all mean the same three arguments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeGuard

from airflow_hptuning.errors import SearchSpaceError

Number = int | float

# No leading zeros: a text such as "007" is a name, not a number.
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def is_number(value: Any) -> TypeGuard[Number]:
    """Whether a value is a finite number; a boolean is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def to_number(value: Any) -> Number | None:
    """Return the number that a YAML scalar stands for (also a text such as ``1e-3``), or None."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        text = value.strip()
        value = int(text) if text.lstrip("+-").isdigit() and len(text) < _LONGEST_INTEGER else float(text)
    return value if is_number(value) else None


_LONGEST_INTEGER = 400
"""Digits; longer integers are beyond the floats anyway, and Python refuses to read very long ones."""


def exact(value: Number) -> Fraction:
    """Return the number that its shortest decimal text names: 0.1 is one tenth, not its binary neighbour."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def show(value: Number) -> str:
    """Return a number as messages print it."""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question that names the nearest known word, or nothing."""
    # Imported here: only a broken file needs it.
    import difflib

    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else ""


def read_arguments(kind: str, raw: Any, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Number]:
    """Read the arguments of a parameter from any of the three notations.

    Args:
        kind: The option of the file, such as ``range``; for messages.
        raw: What the file holds below the option.
        required: Names of the arguments that must be given, in order.
        optional: Names of the arguments that may follow; ``size`` is dropped, as it always was ignored.

    Raises:
        SearchSpaceError: When arguments are missing, unknown or no numbers.
    """
    arguments = _name_arguments(kind, raw, required, optional)
    arguments.pop("size", None)
    return {name: _read_number(kind, name, value) for name, value in arguments.items()}


def _name_arguments(kind: str, raw: Any, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    names = [*required, *optional]
    if isinstance(raw, Mapping):
        _check_keys(kind, raw, required, names)
        return {str(name): value for name, value in raw.items()}
    if isinstance(raw, str):
        raw = raw.split(":")
    if not isinstance(raw, list | tuple):
        hint = _usage(kind, required)
        if is_number(raw):
            hint += " Without quotes, some YAML readers take a notation with colons for a base-60 number."
        raise SearchSpaceError(f"`{kind}` takes a text, a list or a mapping, not {_describe(raw)}", hint)
    if not len(required) <= len(raw) <= len(names):
        most = f" to {len(names)}" if optional else ""
        given = "1 was given" if len(raw) == 1 else f"{len(raw)} were given"
        raise SearchSpaceError(
            f"`{kind}` takes {len(required)}{most} values ({', '.join(names)}), but {given}",
            _usage(kind, required),
        )
    return dict(zip(names, raw, strict=False))


def _check_keys(kind: str, raw: Mapping[Any, Any], required: Sequence[str], names: Sequence[str]) -> None:
    unknown = [str(key) for key in raw if key not in names]
    missing = [name for name in required if name not in raw]
    if unknown:
        hint = did_you_mean(unknown[0], missing or names) or f"It takes {', '.join(names)}."
        raise SearchSpaceError(f"`{kind}` has no `{'`, `'.join(unknown)}`", hint)
    if missing:
        raise SearchSpaceError(f"`{kind}` lacks `{'`, `'.join(missing)}`", _usage(kind, required))


def _read_number(kind: str, name: str, value: Any) -> Number:
    number = to_number(value)
    if number is None:
        finite = " finite" if isinstance(value, float) else ""
        raise SearchSpaceError(f"`{name}` of `{kind}` must be a{finite} number, not {_describe(value)}")
    return number


def _usage(kind: str, required: Sequence[str]) -> str:
    return f"Write `{kind}: [{', '.join(required)}]`."


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return f"a {type(value).__name__}"
