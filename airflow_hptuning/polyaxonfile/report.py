"""What is wrong with a document, in words for its author.

`Report` collects problems and finds their places. `explain` turns pydantic's errors into such problems: it says what is
missing, what a misspelled key may mean, and where a misplaced key belongs.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from attrs import define, field
from pydantic import BaseModel

from airflow_hptuning.errors import PolyaxonfileError, Problem, Severity
from airflow_hptuning.polyaxonfile.fields import closest, show
from airflow_hptuning.polyaxonfile.tree import Mark, Path, locate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from airflow_hptuning.polyaxonfile.reader import Document

__all__ = ["Report", "dotted", "explain"]


def dotted(path: Path) -> str:
    """Return a path as problems show it: ``hptuning.early_stopping[0].metric``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@define
class Report:
    """The problems of a document, as they are found."""

    document: Document
    problems: list[Problem] = field(factory=list)

    def error(self, path: Path, message: str, hint: str = "", *, key: bool = False, mark: Mark | None = None) -> None:
        """Add an error at the value of a path, at its key, or at a place of its own."""
        self._add(path, Severity.ERROR, message, hint, mark or locate(self.document.root, path, key=key))

    def warning(self, path: Path, message: str, hint: str = "", *, key: bool = False, mark: Mark | None = None) -> None:
        """Add a warning at the value of a path, at its key, or at a place of its own."""
        self._add(path, Severity.WARNING, message, hint, mark or locate(self.document.root, path, key=key))

    def _add(self, path: Path, severity: Severity, message: str, hint: str, mark: Mark) -> None:
        found = Problem(self.document.file, mark.line, mark.column, dotted(path), severity, message, hint)
        if found not in self.problems:
            self.problems.append(found)

    @property
    def has_errors(self) -> bool:
        """Whether the document must be refused."""
        return any(found.severity is Severity.ERROR for found in self.problems)

    def raise_errors(self) -> None:
        """Raise all problems if one of them is an error."""
        if self.has_errors:
            raise PolyaxonfileError(self.problems)

    @property
    def sorted(self) -> tuple[Problem, ...]:
        """The problems in the order of the file."""
        return tuple(sorted(self.problems, key=lambda found: (found.line, found.column)))


def explain(error: ValidationError, model: type[BaseModel], report: Report) -> None:
    """Add pydantic's errors to a report.

    Args:
        error: What pydantic found.
        model: The model that was validated.
        report: Where to add the problems.
    """
    for details in error.errors(include_url=False):
        path = tuple(part for part in details["loc"] if part != "[key]")
        if details["type"] == "missing":
            _missing(path, model, report)
        elif details["type"] == "extra_forbidden":
            _unknown(path, model, report)
        else:
            message, hint = _words(details)
            report.error(path, message, hint)


def _missing(path: Path, model: type[BaseModel], report: Report) -> None:
    owner = _model_at(model, path[:-1])
    hint = ""
    if owner is not None and str(path[-1]) in owner.model_fields:
        info = owner.model_fields[str(path[-1])]
        hint = f"{info.description}"
    report.error(path, f"`{path[-1]}` is missing", hint, key=True)


def _unknown(path: Path, model: type[BaseModel], report: Report) -> None:
    key = str(path[-1])
    owner = _model_at(model, path[:-1])
    known = list(owner.model_fields) if owner is not None else []
    hint = closest(key, known)
    if not hint:
        homes = sorted(home for name, home in _homes(model) if name == key)[:3]
        hint = f"It belongs to {' or '.join(f'`{home}`' for home in homes)}." if homes else ""
    if not hint and known:
        hint = f"Known here: {', '.join(known)}."
    report.error(path, f"unknown key `{key}`", hint, key=True)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """Return the model that describes the mapping at a path."""
    found: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        info = found.model_fields.get(part) if found is not None else None
        found = _model_in(info.annotation) if info is not None else None
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


@cache
def _homes(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    """Return every key that the model knows, with the section it belongs to."""
    return tuple(_walk(model, ""))


def _walk(model: type[BaseModel], place: str) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        yield name, place or "the top level"
        child = _model_in(info.annotation)
        if child is not None:
            yield from _walk(child, f"{place}.{name}" if place else name)


_LENGTHS = {"too_short": "min_length", "string_too_short": "min_length"}
_MESSAGES = {
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false, not {input}",
    "bool_parsing": "must be true or false, not {input}",
    "greater_than_equal": "must be at least {ge}, not {input}",
    "greater_than": "must be greater than {gt}, not {input}",
    "less_than": "must be less than {lt}, not {input}",
    "less_than_equal": "must be at most {le}, not {input}",
    "string_too_short": "is empty",
    "string_too_long": "is longer than {max_length} characters",
    "missing_argument": "is missing",
}


def _words(details: ErrorDetails) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    value = details["input"]
    if kind == "problem":
        return context["message"], context["hint"]
    if kind in {"literal_error", "enum"}:
        expected = context["expected"].replace("'", "").replace(" or ", ", ")
        hint = closest(str(value), expected.split(", ")) if isinstance(value, str) else ""
        return f"must be {_one_of(expected)}, not {show(value)}", hint
    if kind in {"too_short", "too_long"} and context.get("field_type") == "Tuple":
        return f"must have {context.get('min_length', context.get('max_length'))} items", ""
    if kind in _MESSAGES:
        shown = {name: _tidy(item) for name, item in context.items()}
        return _MESSAGES[kind].format(**shown, input=show(value)), ""
    return details["msg"][:1].lower() + details["msg"][1:], ""


def _tidy(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _one_of(expected: str) -> str:
    words = expected.split(", ")
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
