"""Kinds of values that the sections of a polyaxonfile hold.

Polyaxon read numbers generously (``"4"`` is 4, ``2.7`` is 2) and words in any case (``UCB``, ``Maximize``). The types
here do the same, and refuse what makes no sense. A validator raises ``problem(...)``, whose text the user reads.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from airflow_hptuning.trials import Direction


class Section(BaseModel):
    """A mapping of the file: frozen, and with no key that is not listed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), regex_engine="python-re")


def problem(message: str, hint: str = "") -> PydanticCustomError:
    """Return the error to raise from a validator; braces in the texts are safe."""
    return PydanticCustomError("problem", "{message}", {"message": message, "hint": hint})


def show(value: Any) -> str:
    """Return a value as a message quotes it: short, and never failing."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"  # noqa: PLR2004 - a readable width


def _whole(value: Any) -> int:
    number = _number(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,300}\s*", value):
        return int(value)
    return value if isinstance(value, int) else math.trunc(number)


def _number(value: Any) -> float:
    try:
        number = None if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = None
    if number is None or not math.isfinite(number):
        raise problem(f"must be a number, not {show(value)}")
    return number


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _direction(value: Any) -> Any:
    words = [direction.value for direction in Direction]
    word = _lower(value)
    if word not in words:
        raise problem(f"must be maximize or minimize, not {show(value)}", closest(str(word), words))
    return Direction(word)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([smhd])\s*$")
_LONGEST = timedelta(days=3650)


def _duration(value: Any) -> timedelta:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match:
        seconds = float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        seconds = float(value)
    else:
        hint = "Write a number of seconds, or a number with a unit: 30s, 15m, 2h, 1d."
        raise problem(f"must be a duration, not {show(value)}", hint)
    if not 0 <= seconds <= _LONGEST.total_seconds():
        raise problem(f"must be between 0 and {_LONGEST.days} days, not {show(value)}")
    return timedelta(seconds=seconds)


def closest(word: str, words: list[str]) -> str:
    """Return a did-you-mean hint, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word, words, n=1)
    return f"Did you mean `{found[0]}`?" if found else ""


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, dict | list):
        raise problem("must be text")
    raise problem(f"must be text, not {show(value)}", f'Quote it: "{value}".')


def _printed(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        raise problem("must be text or a number")
    return value if isinstance(value, str) else str(value)


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number; numeric text is read, a fraction is cut off."""

Count = Annotated[Whole, Field(ge=1)]
"""A whole number from 1."""

Amount = Annotated[Whole, Field(ge=0)]
"""A whole number from 0."""

Number = Annotated[float, BeforeValidator(_number)]
"""A finite number; numeric text is read."""

Text = Annotated[str, BeforeValidator(_text)]
"""Text; a number must be quoted."""

Name = Annotated[Text, Field(min_length=1)]
"""Text that is not empty."""

Printed = Annotated[str, BeforeValidator(_printed)]
"""Text or a number, kept as text (values of environment variables)."""

Word = BeforeValidator(_lower)
"""Marks a choice of words whose case does not matter."""

Optimization = Annotated[Direction, BeforeValidator(_direction)]
"""maximize or minimize, in any case."""

Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _DURATION.pattern}]}),
]
"""A time span: seconds, or a number with s, m, h or d."""

Raw = dict[str, Any]
"""A mapping that is handed on to Kubernetes as it is."""


class LogLevel(StrEnum):
    """How much a trial should log."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
    FATAL = "FATAL"


def _level(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    word = value.upper()
    return {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(word, word)


Level = Annotated[LogLevel, BeforeValidator(_level)]


def _slug(value: str) -> str:
    if not re.fullmatch(r"[-a-zA-Z0-9_]+", value):
        raise problem(f"must hold letters, digits, - and _ only, not {show(value)}")
    return value


Slug = Annotated[Text, AfterValidator(_slug)]
"""Letters, digits, hyphens and underscores."""
