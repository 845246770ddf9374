"""Read polyaxonfiles: text → tree → migrated tree → validated document → `SweepSpec`, with all problems at once."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_hptuning.errors import PolyaxonfileError, Problem, Severity, TemplateError
from airflow_hptuning.polyaxonfile import checks
from airflow_hptuning.polyaxonfile.migration import migrate
from airflow_hptuning.polyaxonfile.reader import read
from airflow_hptuning.polyaxonfile.report import Report, explain
from airflow_hptuning.polyaxonfile.spec import HyperbandSpec, Polyaxonfile, SweepSpec
from airflow_hptuning.polyaxonfile.template import render_command
from airflow_hptuning.polyaxonfile.writer import to_yaml

if TYPE_CHECKING:
    from airflow_hptuning.space.search_space import SearchSpace

__all__ = ["dump", "find_problems", "is_polyaxonfile", "load_spec", "parse_text"]


def load_spec(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> SweepSpec:
    """Read a polyaxonfile.

    Args:
        source: Path of the file, or its text (bytes, or a text of several lines or that names no file).
        name: What to call it in problems instead of the path.

    Raises:
        PolyaxonfileError: The file cannot be read or is wrong; it carries all problems.
    """
    if isinstance(source, bytes) or (isinstance(source, str) and _is_text(source)):
        return parse_text(source, file=name or "<text>")
    return _parse(_bytes_of(source), file=name or os.fspath(source), path=os.fspath(source))


def parse_text(text: str | bytes, *, file: str = "<text>") -> SweepSpec:
    """Read the text of a polyaxonfile.

    Args:
        text: The text, or its bytes.
        file: What to call it in problems.

    Raises:
        PolyaxonfileError: The text is wrong; it carries all problems.
    """
    return _parse(text, file=file, path=None)


def find_problems(path: str | os.PathLike[str]) -> list[Problem]:
    """Return all errors and warnings of a file, in its order."""
    try:
        return list(load_spec(Path(path)).warnings)
    except PolyaxonfileError as error:
        return list(error.problems)


_KIND = re.compile(r"""^[ \t{,]*["']?kind["']?[ \t]*:[ \t]*["']?group\b""", re.MULTILINE)
_SEARCH = re.compile(r"""^[ \t{,]*["']?(?:hptuning|settings)["']?[ \t]*:""", re.MULTILINE)
_JSON_KIND = re.compile(r'"kind"\s*:\s*"group"')
_JSON_SEARCH = re.compile(r'"(?:hptuning|settings)"\s*:')


def is_polyaxonfile(data: bytes | str) -> bool:
    """Whether a text looks like a polyaxonfile of a sweep, without parsing it.

    It does if it says ``kind: group`` and has a section ``hptuning`` (or ``settings``, its name in 2018).
    """
    text = data if isinstance(data, str) else data.decode("utf-8", errors="replace")
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return bool(_JSON_KIND.search(text) and _JSON_SEARCH.search(text))
    return bool(_KIND.search(text) and _SEARCH.search(text))


def dump(spec: SweepSpec) -> str:
    """Return a spec as the text of a polyaxonfile in today's spelling; parsing it gives an equal spec."""
    return to_yaml(spec.document)


def _is_text(source: str) -> bool:
    return "\n" in source or "\0" in source or (":" in source and not Path(source).exists())


def _bytes_of(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        problem = Problem(os.fspath(path), 0, 0, "", Severity.ERROR, message)
        raise PolyaxonfileError([problem]) from error


def _parse(text: str | bytes, *, file: str, path: str | None) -> SweepSpec:
    document = read(text, file=file)
    report = Report(document)
    checks.check_kind(report)
    report.raise_errors()
    report.document = migrate(report)
    tree = report.document.root.plain()
    space = checks.build_space(tree, report)
    checks.render_constants(tree, space, report)
    model = _validate(tree, report)
    params = checks.check_params(tree, model, report)
    checks.check_templates(tree, params, report)
    checks.check_search(tree, space, report)
    if model is not None:
        checks.check_objective(model, report)
    report.raise_errors()
    if model is None or space is None:
        raise PolyaxonfileError(report.problems)  # never empty here: the models have said why
    spec = _spec(model, space, params, report, path)
    _try_once(spec, report)
    report.raise_errors()
    return spec


def _validate(tree: dict[str, Any], report: Report) -> Polyaxonfile | None:
    try:
        return Polyaxonfile.model_validate(tree)
    except ValidationError as error:
        explain(error, Polyaxonfile, report)
        return None


def _spec(
    model: Polyaxonfile, space: SearchSpace, params: dict[str, Any], report: Report, path: str | None
) -> SweepSpec:
    text = report.document.text
    hptuning = model.hptuning
    return SweepSpec(
        params=params,
        run=model.run,
        space=space,
        algorithm=hptuning.algorithm,
        concurrency=hptuning.concurrency,
        seed=hptuning.seed,
        early_stopping=hptuning.early_stopping or (),
        airflow=model.airflow,
        name=model.name,
        description=model.description,
        # Each tag once, in the order of the file.
        tags=tuple(dict.fromkeys(model.tags or ())),
        log_level=model.logging.level.value if model.logging else "INFO",
        backend=model.backend,
        framework=model.framework,
        inputs=model.inputs or (),
        outputs=model.outputs or (),
        environment=model.environment,
        build=model.build,
        path=path,
        text=text,
        digest=hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest(),
        document=report.document.root.plain(),
        warnings=report.sorted,
    )


def _try_once(spec: SweepSpec, report: Report) -> None:
    """Render the command of one random trial, as Polyaxon did before it accepted a file."""
    resource = spec.algorithm.max_iter if isinstance(spec.algorithm, HyperbandSpec) else None
    try:
        render_command(spec, spec.space.sample(Random(0)), resource)  # noqa: S311 - no cryptography
    except TemplateError as error:
        report.error(("run", "cmd"), str(error))
