"""How Airflow finds polyaxonfiles: each one is a DAG file of its own.

Airflow 3.3 reads DAG files through importers, one per file name extension, but its DAG processor still lists only
``.py`` and ``.zip`` files. So two things happen in ``register``: our importer takes the YAML and JSON extensions, and
the one function that lists files is wrapped to list polyaxonfiles too. Where Airflow has changed under us, ``register``
says so in the log and does nothing else; a two-line loader file works everywhere::

    from airflow_hptuning import load
    load(__file__, globals())

Apache Airflow is making importers official (``airflow.sdk.importers``); this module is the only one to change then.
"""

from __future__ import annotations

import logging
import re
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_hptuning.errors import HptuningError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, MutableMapping

    from airflow.dag_processing.importers.base import DagImportResult
    from airflow.sdk import DAG

log = logging.getLogger(__name__)

EXTENSIONS = (".yaml", ".yml", ".json")


def register() -> bool:
    """Let this process read polyaxonfiles as DAG files; idempotent.

    Returns:
        Whether this Airflow can; if not, a warning is in the log and the loader remains.
    """
    try:
        from airflow.dag_processing.importers.base import get_importer_registry
        from airflow.utils import file as airflow_files
    except ImportError as error:
        log.warning("This Airflow has no DAG importers (%s): polyaxonfiles need the two-line loader", error)
        return False
    if not hasattr(airflow_files, "list_py_file_paths"):
        log.warning("This Airflow lists DAG files in another way: polyaxonfiles need the two-line loader")
        return False
    registry = get_importer_registry()
    importer = _importer_class()()
    for extension in EXTENSIONS:
        current = registry.get_importer(f"any{extension}")
        if current is None:
            registry._importers[extension] = importer  # noqa: SLF001 - register() takes all extensions or none
        elif not isinstance(current, type(importer)):
            log.warning(
                "%s files belong to %s: polyaxonfiles with this extension need the two-line loader",
                extension,
                type(current).__name__,
            )
    _list_polyaxonfiles_too(airflow_files)
    return True


def _list_polyaxonfiles_too(airflow_files: Any) -> None:
    """Wrap the function that lists DAG files; the DAG processor imports it by name, after this module."""
    original: Callable[..., list[str]] = airflow_files.list_py_file_paths
    if getattr(original, "lists_polyaxonfiles", False):
        return

    @wraps(original)
    def list_dag_files(directory: str | os.PathLike[str] | None, *args: Any, **kwargs: Any) -> list[str]:
        paths = original(directory, *args, **kwargs)
        if directory is not None and Path(directory).is_dir():
            paths.extend(_polyaxonfiles_below(directory))
        return paths

    list_dag_files.lists_polyaxonfiles = True  # type: ignore[attr-defined]
    airflow_files.list_py_file_paths = list_dag_files


def _polyaxonfiles_below(directory: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the polyaxonfiles of a folder, as its ``.airflowignore`` allows."""
    from airflow._shared.module_loading.file_discovery import find_path_from_directory
    from airflow.configuration import conf

    syntax = conf.get_mandatory_value("core", "DAG_IGNORE_FILE_SYNTAX", fallback="glob")
    for name in find_path_from_directory(directory, ".airflowignore", syntax):
        path = Path(name)
        if path.suffix.lower() in EXTENSIONS and path.is_file() and _is_polyaxonfile(path):
            yield name


def _is_polyaxonfile(path: Path) -> bool:
    from airflow_hptuning.polyaxonfile.parser import is_polyaxonfile

    try:
        return is_polyaxonfile(path.read_bytes())
    except OSError as error:
        log.warning("Cannot read %s: %s", path, error)
        return False


def _importer_class() -> type:
    """Make the importer class: its base is Airflow's, and may be missing."""
    from airflow.dag_processing.importers.base import (
        AbstractDagImporter,
        DagImportError,
        DagImportResult,
        DagImportWarning,
    )

    class PolyaxonfileImporter(AbstractDagImporter):
        """Reads a polyaxonfile as a DAG file; leaves all other YAML and JSON files alone."""

        @classmethod
        def supported_extensions(cls) -> list[str]:
            """Return the extensions of polyaxonfiles."""
            return list(EXTENSIONS)

        def list_dag_files(
            self,
            directory: str | os.PathLike[str],
            safe_mode: bool = True,
        ) -> Iterator[str]:
            """Yield the polyaxonfiles of a folder."""
            return _polyaxonfiles_below(directory)

        def import_file(
            self,
            file_path: str | Path,
            *,
            bundle_path: Path | None = None,
            bundle_name: str | None = None,
            safe_mode: bool = True,
        ) -> DagImportResult:
            """Build the DAG of one polyaxonfile; every problem of the file becomes its import error."""
            from airflow_hptuning.dag_builder import build_dag

            path = Path(file_path)
            relative = self.get_relative_path(path, bundle_path)
            result = DagImportResult(file_path=relative)
            if not _is_polyaxonfile(path):
                result.skipped_files.append(str(path))
                return result
            try:
                dag = build_dag(path)
            except HptuningError as error:
                result.errors.append(_import_error(DagImportError, relative, error))
                return result
            dag.fileloc = str(path)
            dag.relative_fileloc = relative
            result.dags.append(dag)
            result.warnings.extend(
                DagImportWarning(relative, str(problem), "polyaxonfile", problem.line)
                for problem in getattr(dag, "polyaxonfile_warnings", ())
            )
            return result

    return PolyaxonfileImporter


def _import_error(make: Callable[..., Any], relative: str, error: HptuningError) -> Any:
    """The import error of a file: its problems under the file's name as the UI knows it."""
    problems = getattr(error, "problems", ())
    first = problems[0] if problems else None
    text = str(error)
    return make(
        file_path=relative,
        message=text,
        error_type="polyaxonfile",
        line_number=first.line if first else None,
        column_number=first.column if first else None,
        suggestion=first.hint if first else None,
        # Airflow stores and shows this one.
        stacktrace=text,
    )


def load(file: str | os.PathLike[str], namespace: MutableMapping[str, Any]) -> None:
    """Build the DAGs of the polyaxonfiles that lie beside (and below) a loader file.

    For Airflow installations that do not read polyaxonfiles themselves. The file's problems cannot be an import error
    of its own here, so a broken file becomes a DAG tagged ``broken`` whose documentation holds its problems.

    Args:
        file: ``__file__`` of the loader.
        namespace: ``globals()`` of the loader, which receives the DAGs.
    """
    from airflow.sdk import get_parsing_context

    wanted = get_parsing_context().dag_id
    folder = Path(file).resolve().parent
    for name in _polyaxonfiles_below(folder):
        if _is_read_natively(name):
            log.info("%s is a DAG file itself here; the loader leaves it alone", name)
            continue
        if wanted is not None and not _may_define(Path(name), wanted):
            continue
        dag = _load_one(Path(name))
        if wanted is None or dag.dag_id == wanted:
            namespace[f"hptuning_{dag.dag_id}"] = dag


def _is_read_natively(name: str) -> bool:
    """Whether this Airflow reads the file without the loader: its DAG would be there twice."""
    try:
        from airflow.dag_processing.importers.base import get_importer_registry
    except ImportError:
        return False
    importer = get_importer_registry().get_importer(name)
    return type(importer).__name__ == "PolyaxonfileImporter"


def _may_define(path: Path, dag_id: str) -> bool:
    """Whether a file can hold a DAG: it has the DAG's name, or names it."""
    return path.stem == dag_id or dag_id in path.read_text(errors="replace") or re.sub(r"\W", "_", path.stem) == dag_id


def _load_one(path: Path) -> DAG:
    from airflow_hptuning.dag_builder import broken_dag, build_dag

    try:
        return build_dag(path, keep_fileloc=True)
    except HptuningError as error:
        return broken_dag(path, str(error))
