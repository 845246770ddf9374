"""From the plan of a sweep to an Airflow DAG.

The builder only translates: what will run is decided by ``planning``, and how a task works by ``operators``. It is
deterministic, so that the same file always gives the same serialised DAG, and imports nothing heavy, because every
task of the sweep builds the DAG again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_hptuning.errors import PolyaxonfileError, Problem, Severity
from airflow_hptuning.operators.sweep import Sweep
from airflow_hptuning.planning import DEFAULT_RUNNER, MAX_MAP_LENGTH, SweepPlan, plan
from airflow_hptuning.polyaxonfile.parser import load_spec
from airflow_hptuning.polyaxonfile.spec import SweepSpec
from airflow_hptuning.task_graphs import SweepTasks, is_spread

if TYPE_CHECKING:
    import os
    from pathlib import Path

_SHOWN = 80
"""How much of a parameter's definition the DAG's page shows."""

_NO_CRON = ("@once", "@continuous")

_OWN_TASKS = 4
"""Tasks of a sweep that may run beside its trials and must not wait for them."""


def build_dag(source: SweepSpec | str | os.PathLike[str], *, keep_fileloc: bool = False) -> DAG:
    """Build the DAG of a sweep.

    Args:
        source: A parsed spec, the path of a polyaxonfile, or its text.
        keep_fileloc: Whether the DAG keeps the polyaxonfile as its file even if the Airflow that imports it through a
            Python file wants to set that one (the loader).

    Raises:
        PolyaxonfileError: The file has errors, or asks for what this version cannot run.
    """
    spec = source if isinstance(source, SweepSpec) else load_spec(source)
    _check_supported(spec)
    longest = conf.getint("core", "max_map_length", fallback=MAX_MAP_LENGTH)
    shape = plan(spec, runner=runner_of(spec), max_map_length=longest)
    dag = (_KeepsFileloc if keep_fileloc else DAG)(**_dag_arguments(spec, shape))
    if spec.path:
        dag.fileloc = str(spec.path)
    # For the importer, which hands them to Airflow.
    dag.polyaxonfile_warnings = spec.warnings  # type: ignore[attr-defined]
    with dag:
        SweepTasks(Sweep(shape.dag_id, spec), shape).add()
    return dag


def broken_dag(path: Path, problems: str) -> DAG:
    """Return a DAG that stands for a broken polyaxonfile where the file cannot have an import error of its own."""
    dag = _KeepsFileloc(
        f"broken_{path.stem}",
        schedule=None,
        tags=["hptuning", "broken"],
        description=f"{path.name} cannot be read",
        doc_md=f"`{path.name}` cannot be read:\n\n```\n{problems}\n```",
    )
    dag.fileloc = str(path)
    return dag


class _KeepsFileloc(DAG):
    """A DAG whose file is the polyaxonfile although a Python file brings it in.

    Airflow sets ``fileloc`` after the import of that Python file; the Code tab reads it, and nothing else does.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "fileloc" and str(value).endswith(".py"):
            return
        super().__setattr__(name, value)


def _check_supported(spec: SweepSpec) -> None:
    """Refuse what cannot run as the file is; the message is its import error."""
    if runner_of(spec) == "kubernetes" and (spec.build is None or spec.build.image is None):
        message = "trials on Kubernetes need an image, and the file names none"
        hint = "Give `build: {image: ...}`; or run them as processes of the worker: `airflow: {runner: local}`."
        file = str(spec.path or "<text>")
        raise PolyaxonfileError([Problem(file, 1, 1, "build.image", Severity.ERROR, message, hint)])


def runner_of(spec: SweepSpec) -> str:
    """Return the runner of a sweep: its own, or Airflow's ``[hptuning] default_runner``."""
    return spec.airflow.runner or conf.get("hptuning", "default_runner", fallback=DEFAULT_RUNNER)


def _dag_arguments(spec: SweepSpec, shape: SweepPlan) -> dict[str, Any]:
    settings = spec.airflow
    schedule: Any = settings.schedule
    if schedule and schedule not in _NO_CRON:
        # A plain text would be read in Airflow's default time zone.
        schedule = CronTriggerTimetable(schedule, timezone=settings.timezone)
    return {
        "dag_id": shape.dag_id,
        "description": settings.description or spec.description or f"{spec.search} search, {shape.trials} trials",
        "schedule": schedule,
        "start_date": settings.start_date,
        "end_date": settings.end_date,
        "catchup": settings.catchup,
        "max_active_runs": settings.max_active_runs,
        "max_active_tasks": _active_tasks(spec, shape),
        "tags": sorted({"hptuning", spec.search, *spec.tags, *settings.tags}),
        "doc_md": _documentation(spec, shape),
        "default_args": {"owner": settings.owner or "airflow"},
    }


def _active_tasks(spec: SweepSpec, shape: SweepPlan) -> int:
    """How many tasks of a run may run at once; Airflow's default of 16 would cap the concurrency in silence."""
    # The limit of a mapped task holds for it alone. Where there are several of them, side by side, and the pool is not
    # the sweep's own, this is the only limit that holds for all; then suggesting and halving take a trial's place.
    return shape.concurrency if spec.airflow.pool and is_spread(shape) else shape.concurrency + _OWN_TASKS


def _documentation(spec: SweepSpec, shape: SweepPlan) -> str:
    """What the DAG's page says: the file's own words, what is searched, and what its reader should know."""
    lines = [spec.airflow.doc_md or spec.description or "", ""]
    lines += [f"**{spec.search}** search: {shape.trials} trials, {shape.concurrency} at once.", ""]
    lines += ["| parameter | kind | values |", "|---|---|---|"]
    for parameter in spec.space.parameters:
        # Backticks keep the user's text from being read as markup.
        definition = str(next(iter(parameter.definition().values())))
        shown = definition if len(definition) <= _SHOWN else definition[: _SHOWN - 1] + "…"
        lines.append(f"| `{_code(parameter.name)}` | {parameter.kind} | `{_code(shown)}` |")
    if spec.warnings:
        lines += ["", "Warnings:", ""]
        lines += [f"- `{_code(problem.path)}`: {problem.message}. {problem.hint}" for problem in spec.warnings]
    return "\n".join(lines).strip()


def _code(text: str) -> str:
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")
