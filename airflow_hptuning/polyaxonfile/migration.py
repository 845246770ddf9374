"""Older spellings to today's, before validation: files from the first Polyaxon releases still run.

| then | today |
|---|---|
| ``settings: {...}`` | ``hptuning: {...}``, ``logging`` |
| ``matrix`` at the top level | ``hptuning.matrix`` |
| ``concurrent_experiments`` | ``concurrency`` |
| ``search_method``, ``n_experiments`` in settings | ``grid_search`` or ``random_search`` |
| ``higher: true`` | ``optimization: maximize`` |
| ``run: {image, build_steps, install, steps, env_vars}`` | ``build: {...}`` |
| ``node_selectors``, ``configmap_refs`` | ``node_selector``, ``config_map_refs`` |
| ``environment: {tensorflow: ...}`` | ``environment: {replicas: ...}`` |

Nodes move with their places, so later problems still point to the lines of the user's file. Each step warns with the
new spelling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_hptuning.errors import SearchSpaceError
from airflow_hptuning.polyaxonfile.fields import show
from airflow_hptuning.polyaxonfile.hptuning import ALGORITHMS
from airflow_hptuning.polyaxonfile.reader import Document
from airflow_hptuning.polyaxonfile.tree import Mark, Node
from airflow_hptuning.space.parameters import parse_parameter
from airflow_hptuning.space.search_space import SearchSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_hptuning.polyaxonfile.report import Report

_EMBEDDED = ("model", "train", "eval")
_SETTINGS = ("seed", "concurrency", "matrix", *ALGORITHMS, "early_stopping")
_FRAMEWORKS = ("tensorflow", "horovod", "pytorch", "mxnet")


def migrate(report: Report) -> Document:
    """Return the document in today's spelling.

    Args:
        report: Holds the document as it is written, and receives the warnings (and the errors about what cannot be
            migrated).
    """
    root = report.document.root.copy()
    for step in _STEPS:
        step(root, report)
    return Document(root, report.document.text, report.document.file)


def _embedded_model(root: Node, report: Report) -> None:
    for name in _EMBEDDED:
        if name in root.value:
            report.error(
                (name,),
                f"`{name}` describes a model in the file itself, which Polyaxon dropped in 2018",
                "Put the model into a program and name it in `run: {cmd: ...}`.",
                key=True,
            )
            del root.value[name]


def _project(root: Node, report: Report) -> None:
    if "project" in root.value:
        report.warning(("project",), "`project` has no meaning any more and is ignored", key=True)
        del root.value["project"]


def _kind(root: Node, report: Report) -> None:
    if "kind" not in root.value and ("settings" in root.value or "matrix" in root.value):
        report.warning((), "a file of this age needs `kind: group` today", "Add `kind: group`.")
        root.put("kind", Node("group", root.mark))


def _settings(root: Node, report: Report) -> None:
    settings = root.value.get("settings")
    if settings is None:
        return
    if not isinstance(settings.value, dict):
        return  # validation says that this is no known section
    del root.value["settings"]
    report.warning(("settings",), "`settings` is spelled `hptuning` today", "Rename the section.", key=True)
    hptuning = _section(root, "hptuning", settings.mark)
    for key in list(settings.value):
        node, mark = settings.value[key], settings.keys[key]
        if key in _SETTINGS:
            _move(hptuning, key, node, mark, report)
        elif key == "logging":
            root.put("logging", node, mark)
            report.warning(("settings", key), "`logging` stands at the top level today", "Move it.", key=True)
        elif key == "run_type":
            report.warning(("settings", key), "`run_type` has no meaning any more and is ignored", key=True)
        elif key not in {"concurrent_experiments", "search_method", "n_experiments"}:
            _move(hptuning, key, node, mark, report)
    _concurrent_experiments(settings, hptuning, report)
    _matrix(root, report)
    _search_method(settings, hptuning, report)


def _concurrent_experiments(settings: Node, hptuning: Node, report: Report) -> None:
    node = settings.get("concurrent_experiments")
    if node is not None:
        _move(hptuning, "concurrency", node, settings.keys["concurrent_experiments"], report)
        hint = f"Write `concurrency: {show(node.plain())}`."
        place = ("settings", "concurrent_experiments")
        report.warning(place, "`concurrent_experiments` is spelled `concurrency` today", hint, key=True)


def _matrix(root: Node, report: Report) -> None:
    matrix = root.value.pop("matrix", None)
    if matrix is not None:
        report.warning(("matrix",), "`matrix` belongs below `hptuning` today", "Move it.", key=True)
        _move(_section(root, "hptuning", matrix.mark), "matrix", matrix, root.keys["matrix"], report)


def _search_method(settings: Node, hptuning: Node, report: Report) -> None:
    method, number = settings.get("search_method"), settings.get("n_experiments")
    if method is None and number is None:
        return
    key = "search_method" if method is not None else "n_experiments"
    mark = settings.keys[key]
    word = str(method.value).lower() if method is not None else "sequential"
    if word not in {"sequential", "random"}:
        message = f"must be SEQUENTIAL or RANDOM, not {show(word)}"
        report.error(("settings", "search_method"), message, "Today: `grid_search` or `random_search`.")
        return
    algorithm = "random_search" if word == "random" else "grid_search"
    entry = Node({}, mark)
    _move(hptuning, algorithm, entry, mark, report)
    size = _space_size(hptuning)
    if number is not None:
        count = _experiments(number.value, size)
        entry.put("n_experiments", Node(count, number.mark), settings.keys["n_experiments"])
    elif word == "random" and size is not None:
        entry.put("n_experiments", Node(size, mark), mark)
    shown = ", ".join(f"{name}: {show(node.value)}" for name, node in entry.value.items())
    report.warning(
        ("settings", key), f"`{key}` is spelled `{algorithm}` today", f"Write `{algorithm}: {{{shown}}}`.", key=True
    )


def _experiments(number: Any, size: int | None) -> Any:
    """Return a number of experiments; a fraction meant a part of the space."""
    if isinstance(number, float) and 0 < number < 1 and size is not None:
        return max(1, int(number * size))
    return number


def _space_size(hptuning: Node) -> int | None:
    matrix = hptuning.get("matrix")
    entries = matrix.plain() if matrix is not None else None
    if not isinstance(entries, dict):
        return None
    try:
        return SearchSpace(
            tuple(
                parse_parameter(name, option, raw)
                for name, entry in entries.items()
                if isinstance(entry, dict)
                for option, raw in entry.items()
            )
        ).size
    except SearchSpaceError:
        return None  # validation says what is wrong


def _run(root: Node, report: Report) -> None:
    run = root.value.get("run")
    if run is None or not isinstance(run.value, dict):
        return
    for old, new in _RUN_KEYS.items():
        node = run.value.pop(old, None)
        if node is None:
            continue
        report.warning(
            ("run", old), f"`{old}` belongs below `build` today", f"Write `build: {{{new}: ...}}`.", key=True
        )
        build = _section(root, "build", run.mark)
        if build.get(new) is None and isinstance(build.value, dict):
            build.put(new, node, run.keys[old])
    if run.value.pop("git", None) is not None:
        report.warning(("run", "git"), "`git` is ignored", "Put the code into the image or next to the file.", key=True)


_RUN_KEYS = {
    "image": "image",
    "build_steps": "build_steps",
    "install": "build_steps",
    "steps": "build_steps",
    "env_vars": "env_vars",
}


def _build(root: Node, report: Report) -> None:
    build = root.value.get("build")
    if build is not None and isinstance(build.value, dict) and build.value.pop("git", None) is not None:
        hint = "Put the code into the image or next to the file."
        report.warning(("build", "git"), "`git` is ignored", hint, key=True)


def _environment(root: Node, report: Report) -> None:
    environment = root.value.get("environment")
    if environment is None or not isinstance(environment.value, dict):
        return
    for old, new in (("node_selectors", "node_selector"), ("configmap_refs", "config_map_refs")):
        if old in environment.value and new not in environment.value:
            environment.put(new, environment.value.pop(old), environment.keys[old])
            report.warning(("environment", old), f"`{old}` is spelled `{new}` today", f"Write `{new}`.", key=True)
    for name in _FRAMEWORKS:
        if name in environment.value and "replicas" not in environment.value:
            environment.put("replicas", environment.value.pop(name), environment.keys[name])
            hint = f"Write `framework: {name}` at the top level and `replicas`."
            report.warning(("environment", name), f"`{name}` is spelled `replicas` today", hint, key=True)


def _early_stopping(root: Node, report: Report) -> None:
    hptuning = root.value.get("hptuning")
    entries = hptuning.get("early_stopping") if hptuning is not None else None
    if entries is None or not isinstance(entries.value, list):
        return
    for index, entry in enumerate(entries.value):
        place = ("hptuning", "early_stopping", index)
        higher = entry.get("higher")
        if higher is not None and isinstance(higher.value, bool) and entry.get("optimization") is None:
            word = "maximize" if higher.value else "minimize"
            entry.put("optimization", Node(word, higher.mark), entry.keys["higher"])
            del entry.value["higher"]
            message = "`higher` is spelled `optimization` today"
            hint = f"Write `optimization: {word}`."
            report.warning((*place, "higher"), message, hint, mark=entry.keys["higher"])
        policy = entry.get("policy")
        if policy is not None and isinstance(policy.value, str):
            del entry.value["policy"]
            message = f"`policy: {show(policy.value)}` never had an effect and is ignored"
            hint = "A policy is a mapping such as {kind: median}."
            report.warning((*place, "policy"), message, hint, mark=entry.keys["policy"])


def _section(root: Node, name: str, mark: Mark) -> Node:
    node: Node | None = root.value.get(name)
    if node is None or node.value is None:
        node = Node({}, mark)
        root.put(name, node, root.keys.get(name, mark))
    return node


def _move(section: Node, key: str, node: Node, mark: Mark, report: Report) -> None:
    """Put a key where it belongs today, unless the section has it already (or is no mapping, which is said later)."""
    if not isinstance(section.value, dict):
        return
    if key in section.value:
        first = section.keys[key]
        hint = f"Remove one; the other is at {first.line}:{first.column}."
        report.error(("hptuning", key), f"`{key}` is given in the old and in the new spelling", hint, mark=mark)
        return
    section.put(key, node, mark)


_STEPS: tuple[Callable[[Node, Report], None], ...] = (
    _embedded_model,
    _project,
    _kind,
    _settings,
    _matrix,
    _run,
    _build,
    _environment,
    _early_stopping,
)
