"""The schema of a polyaxonfile for editors (JSON Schema) and for readers (the reference page).

Both come from the models that validate, so neither can be out of date.
"""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from airflow_hptuning.polyaxonfile.spec import Polyaxonfile
from airflow_hptuning.space.parameters import PARAMETER_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KIND_FORMS: dict[str, Any] = {
    "values": {"type": "array", "minItems": 1},
    "pvalues": {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 2, "maxItems": 2}},
}
_EXAMPLES = {
    "values": "[relu, tanh]",
    "pvalues": "[[relu, 0.3], [tanh, 0.7]]",
    "range": "[0, 10, 2]",
    "linspace": "[0, 1, 5]",
    "logspace": "[-4, -1, 4]",
    "geomspace": "[0.0001, 0.1, 4]",
    "uniform": "[0, 0.9]",
    "quniform": "[16, 128, 16]",
    "loguniform": "[-7, -1]",
    "qloguniform": "[0, 5, 1]",
    "normal": "[0, 1]",
    "qnormal": "[100, 20, 10]",
    "lognormal": "[0, 1]",
    "qlognormal": "[2, 1, 1]",
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a polyaxonfile in today's spelling."""
    schema = Polyaxonfile.model_json_schema()
    matrix = schema["$defs"]["HptuningSpec"]["properties"]["matrix"]
    matrix["additionalProperties"] = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {kind: _kind_schema(kind) for kind in PARAMETER_KINDS},
    }
    return {"$schema": _DIALECT, **schema}


def _kind_schema(kind: str) -> dict[str, Any]:
    form = _KIND_FORMS.get(kind) or {
        "anyOf": [
            {"type": "string", "pattern": ":"},
            {"type": "array", "items": {"type": ["number", "string"]}, "minItems": 2, "maxItems": 4},
            {"type": "object"},
        ]
    }
    return {"description": _kind_summary(kind), **form}


def _kind_summary(kind: str) -> str:
    """Return what a kind means; its name stands beside it already."""
    meaning = _summary(PARAMETER_KINDS[kind]).removeprefix(f"``{kind}``: ")
    return meaning[:1].upper() + meaning[1:]


def _summary(thing: type) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")


def reference_markdown() -> str:
    """Return the reference page: every section and key, with type, default, meaning and an example."""
    intro = (
        "Generated from the schema that validates; `airflow-hptuning schema` prints it as JSON Schema, and"
        " [polyaxonfile.schema.json](polyaxonfile.schema.json) is that for editors."
    )
    kinds = (
        "Each key of `hptuning.matrix` has exactly one of these. All but the first two also take a text"
        " (`0:1:5`) or a mapping (`{start: 0, stop: 1, num: 5}`)."
    )
    parts = [
        "# Polyaxonfile reference",
        intro,
        *_section("", Polyaxonfile, level=2),
        "## Kinds of parameters",
        kinds,
        "| kind | meaning | example |\n|---|---|---|\n"
        + "\n".join(
            f"| `{kind}` | {_cell(_kind_summary(kind))} | `{kind}: {_EXAMPLES[kind]}` |" for kind in PARAMETER_KINDS
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _section(place: str, model: type[BaseModel], *, level: int) -> Iterator[str]:
    title = f"`{place}`" if place else "Top level"
    yield f"{'#' * min(level, 6)} {title}"
    yield _summary(model)
    rows = [_row(name, info) for name, info in model.model_fields.items()]
    yield "| key | type | default | meaning | example |\n|---|---|---|---|---|\n" + "\n".join(rows)
    for name, info in model.model_fields.items():
        child = _model_in(info.annotation)
        if child is not None:
            yield from _section(f"{place}.{name}" if place else name, child, level=level + 1)


def _row(name: str, info: FieldInfo) -> str:
    example = json.dumps(info.examples[0], ensure_ascii=False, default=str) if info.examples else ""
    cells = [f"`{name}`", _type(info.annotation), _default(info), _cell(info.description or "")]
    return f"| {' | '.join(cells)} | {_code(example) if example else ''} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.default
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, bool | tuple | dict):
        return _code(json.dumps(value)) if value not in ((), {}) else ""
    return _code(str(value))


def _type(annotation: Any) -> str:
    names = [_name(part) for part in (get_args(annotation) if _is_union(annotation) else (annotation,))]
    return " or ".join(dict.fromkeys(name for name in names if name))


def _is_union(annotation: Any) -> bool:
    return type(None) in get_args(annotation) or "|" in str(annotation).partition("[")[0]


_NAMES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "dict": "mapping",
    "tuple": "list",
    "timedelta": "duration",
    "datetime": "date",
    "Decimal": "number",
    "Direction": "maximize or minimize",
    "NoneType": "",
    "LogLevel": "DEBUG, INFO, WARN, ERROR or FATAL",
    "Any": "anything",
}


def _name(part: Any) -> str:
    if isinstance(part, type) and issubclass(part, BaseModel):
        return "section"
    origin = getattr(part, "__origin__", part)
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{word}`" for word in get_args(part))
    if hasattr(part, "__metadata__"):
        return _name(origin)
    name = getattr(origin, "__name__", str(origin))
    return _NAMES.get(name, name)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _code(text: str) -> str:
    """Return text as code in a cell; within code only the bar needs an escape."""
    return f"`{text.replace('|', chr(92) + '|')}`"
