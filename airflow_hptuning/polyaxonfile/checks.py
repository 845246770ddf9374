"""What the models cannot see: the search space, and how the sections of a file fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_hptuning.errors import SearchSpaceError, TemplateError
from airflow_hptuning.polyaxonfile import template
from airflow_hptuning.polyaxonfile.fields import closest, show
from airflow_hptuning.polyaxonfile.hptuning import ALGORITHMS
from airflow_hptuning.polyaxonfile.jinja import parse
from airflow_hptuning.space.parameters import parse_parameter
from airflow_hptuning.space.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_hptuning.polyaxonfile.report import Report
    from airflow_hptuning.polyaxonfile.sections import IOSpec
    from airflow_hptuning.polyaxonfile.spec import Polyaxonfile
    from airflow_hptuning.space.parameters import Parameter

_TEMPLATED = ("tags", "build", "environment", "logging", "backend", "framework")
_OTHER_RUNS = frozenset({"ops", "experiments", "jobs"})
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "metric": (int, float),
    "bool": bool,
    "dict": dict,
    "metadata": dict,
    "list": list,
}


def check_kind(report: Report) -> None:
    """Refuse files of another kind, before everything in them is called unknown."""
    root = report.document.root
    kind = root.get("kind")
    if kind is None:
        if "settings" not in root.value and "matrix" not in root.value:
            report.error(("kind",), "`kind` is missing", "Add `kind: group`.")
    elif kind.value != "group":
        hint = "A file with a search is of `kind: group`." if "hptuning" in root.value else ""
        report.error(("kind",), f"only `kind: group` describes a sweep, not {show(kind.plain())}", hint)


def build_space(tree: Mapping[str, Any], report: Report) -> SearchSpace | None:
    """Return the search space, or None when it has errors (they are in the report then)."""
    hptuning = tree.get("hptuning")
    matrix = hptuning.get("matrix") if isinstance(hptuning, dict) else None
    if not isinstance(matrix, dict):
        return None  # the models say so
    if not matrix:
        report.error(("hptuning", "matrix"), "the matrix is empty", "Add at least one parameter.")
        return None
    found = [_parameter(name, entry, report) for name, entry in matrix.items()]
    parameters = [parameter for parameter in found if parameter is not None]
    if len(parameters) < len(found):
        return None
    for parameter in parameters:
        for message, hint in parameter.warnings():
            report.warning(("hptuning", "matrix", parameter.name, parameter.kind), message, hint)
    return SearchSpace(tuple(parameters))


def _parameter(name: str, entry: Any, report: Report) -> Parameter | None:
    path = ("hptuning", "matrix", name)
    if not isinstance(entry, dict):
        report.error(path, "must be a mapping with one kind of domain", "Such as `{values: [1, 2]}`.")
        return None
    options = {option: raw for option, raw in entry.items() if raw is not None}
    if len(options) != 1:
        found = f"there are {len(options)}: {', '.join(map(str, options))}" if options else "there is none"
        report.error(path, f"needs exactly one kind of domain, and {found}", "Such as `{values: [1, 2]}`.")
        return None
    ((option, raw),) = options.items()
    try:
        return parse_parameter(name, option, raw)
    except SearchSpaceError as error:
        report.error((*path, option), error.message, error.hint)
        return None


def constants_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constants of a file as they are written: defaults of inputs, then declarations and params."""
    constants: dict[str, Any] = {}
    inputs = tree.get("inputs")
    for item in inputs if isinstance(inputs, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str) and item.get("default") is not None:
            constants[item["name"]] = item["default"]
    for section in ("declarations", "params"):
        values = tree.get(section)
        if isinstance(values, dict):
            constants |= values
    return constants


def render_constants(tree: dict[str, Any], space: SearchSpace | None, report: Report) -> None:
    """Render the templates of the sections that all trials share, in place."""
    searched = set(space.names) if space else set()
    constants = {name: value for name, value in constants_of(tree).items() if name not in searched}
    for section in _TEMPLATED:
        if section not in tree or not any(template.texts(tree[section])):
            continue
        try:
            tree[section] = template.render_constants(tree[section], constants)
        except TemplateError as error:
            hint = "Templates here may use params only: all trials share this section."
            report.error((section,), str(error), hint)


def check_params(tree: Mapping[str, Any], model: Polyaxonfile | None, report: Report) -> dict[str, Any]:
    """Return the constants without the searched names; warn of each that a search replaces."""
    if tree.get("params") and tree.get("declarations"):
        hint = "Put all constants below `params`."
        report.error(("declarations",), "`params` and `declarations` are the same, use one", hint, key=True)
    replaced = _searched(tree)
    constants = constants_of(tree)
    for name in constants.keys() & replaced:
        place = next((key for key in ("params", "declarations") if name in (tree.get(key) or ())), "inputs")
        path = (place, name) if place != "inputs" else ("inputs",)
        report.warning(
            path,
            f"`{name}` is searched, so its constant value is not used (Polyaxon silently did the reverse)",
            f"Remove `{name}` here.",
            key=True,
        )
    if model is not None and model.inputs:
        _check_inputs(model.inputs, constants, replaced, report)
    return {name: value for name, value in constants.items() if name not in replaced}


def _section(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A section of a tree that may be of any shape; empty where there is none."""
    found: Any = tree
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _resource(tree: Mapping[str, Any]) -> str | None:
    name = _section(tree, "hptuning", "hyperband", "resource").get("name")
    return name if isinstance(name, str) else None


def _searched(tree: Mapping[str, Any]) -> set[str]:
    """The names that a search sets; also where the search itself has errors."""
    return {*_section(tree, "hptuning", "matrix"), *filter(None, [_resource(tree)])}


def _check_inputs(
    inputs: tuple[IOSpec, ...], constants: Mapping[str, Any], searched: Collection[str], report: Report
) -> None:
    declared = {item.name: item for item in inputs}
    for name in constants.keys() - declared.keys():
        hint = closest(name, list(declared)) or "Declare it below `inputs`."
        report.error(("params", name), f"`{name}` is no declared input", hint, key=True)
    for index, item in enumerate(inputs):
        if item.name in searched:
            continue
        if item.name not in constants:
            if not item.is_optional:
                hint = f"Add `params: {{{item.name}: ...}}`, or search it."
                report.error(("inputs", index), f"the input `{item.name}` is required and has no value", hint)
            continue
        _check_value(item, constants[item.name], ("inputs", index), report)


def _check_value(item: IOSpec, value: Any, path: tuple[str | int, ...], report: Report) -> None:
    if any(template.texts(value)):
        return  # known only when it is rendered
    read = template.literal(value) if isinstance(value, str) else value
    values = read if item.is_list and isinstance(read, list) else [read]
    expected = _TYPES.get(item.type or "")
    for found in values:
        is_bool = isinstance(found, bool) and item.type not in {"bool", None}
        if expected is not None and (not isinstance(found, expected) or is_bool):
            report.error(path, f"`{item.name}` must be of type {item.type}, not {show(found)}")
        elif item.options is not None and found not in item.options:
            known = ", ".join(map(str, item.options))
            report.error(path, f"`{item.name}` must be one of {known}, not {show(found)}")


def check_templates(tree: Mapping[str, Any], params: Mapping[str, Any], report: Report) -> None:
    """Find templates that are wrong, and names that nothing defines."""
    inputs = tree.get("inputs")
    declared = [item.get("name") for item in inputs if isinstance(item, dict)] if isinstance(inputs, list) else []
    known = {*params, *_searched(tree), *(name for name in declared if isinstance(name, str))}
    command = _section(tree, "run").get("cmd")
    for line in command if isinstance(command, list) else [command]:
        if isinstance(line, str):
            _check_template(line, known, ("run", "cmd"), report)
    for name, value in params.items():
        for text in template.texts(value):
            _check_template(text, known, ("params" if tree.get("params") else "declarations", name), report)


def _check_template(text: str, known: Collection[str], path: tuple[str, ...], report: Report) -> None:
    try:
        required = parse(text).required
    except TemplateError as error:
        report.error(path, str(error))
        return
    for name in sorted(required - set(known)):
        if name in _OTHER_RUNS:
            report.error(path, f"references to other runs (`{name}.…`) are not supported")
        else:
            hint = closest(name, sorted(known)) or "Define it below `params`, or search it."
            report.error(path, f"`{name}` is not defined", hint)


def check_search(tree: Mapping[str, Any], space: SearchSpace | None, report: Report) -> None:
    """Check the algorithm against the space."""
    hptuning = _section(tree, "hptuning")
    chosen = [key for key in ALGORITHMS if hptuning.get(key) is not None]
    for key in chosen[1:]:
        hint = f"The file also has `{chosen[0]}`; keep one."
        report.error(("hptuning", key), "only one search algorithm can be used", hint, key=True)
    if space is not None and chosen in ([], ["grid_search"]):
        for parameter in space.parameters:
            if parameter.is_distribution:
                report.error(
                    ("hptuning", "matrix", parameter.name, parameter.kind),
                    f"`{parameter.name}` defines a distribution, and it cannot be used with grid search",
                    "Use `values`, a range, or `random_search: {n_experiments: ...}`.",
                )
    resource = _resource(tree)
    if resource is not None and resource in _section(tree, "hptuning", "matrix"):
        report.error(
            ("hptuning", "matrix", resource),
            f"`{resource}` is the resource of hyperband, which sets it itself",
            "Remove it from the matrix.",
            key=True,
        )


def check_objective(model: Polyaxonfile, report: Report) -> None:
    """Warn when nothing tells which trial is the best."""
    hptuning = model.hptuning
    named = hptuning.hyperband or hptuning.bo or hptuning.early_stopping or model.airflow.metrics.objective
    if named is None or named == ():
        report.warning(
            ("hptuning",),
            "no metric is named, so the trials cannot be ranked",
            "Add `airflow: {metrics: {objective: {name: loss, optimization: minimize}}}`.",
            key=True,
        )
