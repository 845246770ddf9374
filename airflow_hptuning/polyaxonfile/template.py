"""From a spec and the values of a trial to the command that runs it.

Constants are templates that may refer to each other and to searched values; they are resolved on demand and read as
Python literals (``"1e-3"`` is 0.001), as Polyaxon did. Searched values are data: what they hold is never rendered.
"""

from __future__ import annotations

import ast
import json
import re
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from attrs import define, field

from airflow_hptuning.errors import TemplateError
from airflow_hptuning.polyaxonfile.jinja import MAX_TEXT, is_template, parse
from airflow_hptuning.polyaxonfile.scalars import MAX_INT_BITS
from airflow_hptuning.trials import TrialCommand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.trials import Params, Suggestion

_TEXT_TYPES = frozenset({"str", "uri", "auth", "path", "gcs_path", "s3_path", "azure_path"})
_LITERAL = re.compile(r"\s*(?:[-+]?\.?\d|[\[({'\"]|True\b|False\b|None\b)")


def resolve_params(spec: SweepSpec, searched: Params, resource: float | None = None) -> dict[str, Any]:
    """Return all values that a trial sees: constants, searched values, the resource.

    Args:
        spec: The sweep.
        searched: The searched values.
        resource: Amount of the resource (Hyperband).

    Raises:
        TemplateError: A constant cannot be rendered.
    """
    return _Resolver(spec.params, _given(spec, searched, resource), _text_names(spec)).all()


def render_command(spec: SweepSpec, searched: Params, resource: float | None = None) -> str:
    """Return the command of a trial.

    Raises:
        TemplateError: The command or a constant cannot be rendered.
    """
    return _render_command(spec, resolve_params(spec, searched, resource))


def trial_command(  # the call is part of the contract between the layers
    spec: SweepSpec,
    suggestion: Suggestion,
    *,
    sweep: str,
    run_id: str,
    outputs_path: str,
    attempt: int = 1,
) -> TrialCommand:
    """Return what a runner needs to run a trial.

    Args:
        spec: The sweep.
        suggestion: The configuration and its resource.
        sweep: Name of the sweep (its DAG).
        run_id: The run of the sweep.
        outputs_path: Directory (or prefix) for what the trial writes.
        attempt: Number of the try, from 1.

    Raises:
        TemplateError: The command or a constant cannot be rendered.
    """
    params = resolve_params(spec, suggestion.params, suggestion.resource)
    as_json = json.dumps(params, default=str)
    env = dict(spec.build.env_vars) if spec.build else {}
    if spec.build and spec.build.lang_env:
        env |= dict.fromkeys(("LANG", "LC_ALL", "LANGUAGE"), spec.build.lang_env)
    env |= {
        "POLYAXON_PARAMS": as_json,
        "POLYAXON_DECLARATIONS": as_json,
        "POLYAXON_EXPERIMENT_INFO": json.dumps(_experiment_info(sweep, run_id, suggestion.trial)),
        "POLYAXON_RUN_OUTPUTS_PATH": outputs_path,
        "POLYAXON_LOG_LEVEL": spec.log_level,
        "HPTUNING_TRIAL_ID": str(suggestion.trial),
        "HPTUNING_SWEEP": sweep,
        "HPTUNING_RUN_ID": run_id,
        "HPTUNING_OUTPUTS_PATH": outputs_path,
        "HPTUNING_ATTEMPT": str(attempt),
    }
    if suggestion.resource is not None:
        env["HPTUNING_RESOURCE"] = str(suggestion.resource)
    image = spec.build.image if spec.build else None
    return TrialCommand(_render_command(spec, params), env, outputs_path, image)


def _render_command(spec: SweepSpec, params: Mapping[str, Any]) -> str:
    flags = {item.name for item in spec.inputs if item.is_flag}
    shown = {name: _flag(name, value) if name in flags else value for name, value in params.items()}
    return parse(spec.run.cmd).render(shown)


def _flag(name: str, value: Any) -> str:
    return f"--{name}" if value else ""


def _given(spec: SweepSpec, searched: Params, resource: float | None) -> dict[str, Any]:
    given = dict(searched)
    if resource is not None and spec.resource is not None:
        given[spec.resource.name] = resource
    return given


def _text_names(spec: SweepSpec) -> frozenset[str]:
    return frozenset(item.name for item in spec.inputs if item.type in _TEXT_TYPES)


def _experiment_info(sweep: str, run_id: str, trial: int) -> dict[str, str]:
    group = f"{sweep}.{run_id}"
    experiment = f"{group}.{trial}"
    return {
        "role": "polyaxon-workers",
        "type": "polyaxon-runner",
        "app": "polyaxon-experiment",
        "project_name": sweep,
        "experiment_group_name": group,
        "experiment_name": experiment,
        "project_uuid": _uuid(sweep),
        "experiment_group_uuid": _uuid(group),
        "experiment_uuid": _uuid(experiment),
    }


def _uuid(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"hptuning://{name}").hex


# --- constants -------------------------------------------------------------------------------------------------


def texts(value: Any) -> Iterator[str]:
    """Yield the templates within a constant."""
    if isinstance(value, str):
        if is_template(value):
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def render_constants(value: Any, constants: Mapping[str, Any]) -> Any:
    """Return a value of the file with its templates rendered from constants alone, for all trials alike.

    Raises:
        TemplateError: A template is wrong, or needs what is no constant.
    """
    return _Resolver({"": value, **constants}, {}, frozenset(), plain_text=True).value("")


@define
class _Resolver:
    """Resolves constants on demand."""

    constants: Mapping[str, Any]
    given: Mapping[str, Any]
    text_names: frozenset[str]
    plain_text: bool = False
    _done: dict[str, Any] = field(init=False, factory=dict)
    _open: list[str] = field(init=False, factory=list)

    def all(self) -> dict[str, Any]:
        return {name: self.value(name) for name in self.constants if name not in self.given} | dict(self.given)

    def value(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        if name not in self._done:
            if name not in self.constants:
                raise TemplateError(f"`{name}` is not defined")
            if name in self._open:
                chain = " → ".join([*self._open[self._open.index(name) :], name])
                raise TemplateError(f"constants refer to each other in a circle: {chain}")
            self._open.append(name)
            self._done[name] = self._resolve(self.constants[name], keep_text=name in self.text_names)
            self._open.pop()
        return self._done[name]

    def _resolve(self, value: Any, *, keep_text: bool) -> Any:
        if isinstance(value, dict):
            return {key: self._resolve(item, keep_text=keep_text) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._resolve(item, keep_text=keep_text) for item in value]
        if not isinstance(value, str):
            return value
        if not is_template(value):
            return value if keep_text or self.plain_text else literal(value)
        template = parse(value)
        known = template.required | (template.names & (self.given.keys() | self.constants.keys()))
        text = template.render({name: self.value(name) for name in sorted(known)})
        return text if keep_text else literal(text)


def literal(text: str) -> Any:
    """Return the Python literal that a text is, if it is one that JSON knows too, else the text."""
    if len(text) > MAX_TEXT or not _LITERAL.match(text):
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            value = ast.literal_eval(text)
        return _plain(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int) and value.bit_length() <= MAX_INT_BITS:
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError
