"""Polyaxonfiles as DAG files: the importer, the file listing, and the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing import manager
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.dag_processing.importers import get_importer_registry
from airflow.utils.file import list_py_file_paths

from airflow_hptuning import discovery, load

SWEEP = """
version: 1
kind: group
hptuning: {matrix: {x: {values: [1, 2]}}}
run: {cmd: "echo loss={{ x }}"}
airflow: {metrics: {objective: {name: loss, optimization: minimize}}}
"""


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """A dags folder with a sweep, a broken sweep, foreign files, and an ignored sweep."""
    folder = tmp_path / "dags"
    (folder / "more").mkdir(parents=True)
    files = {
        "sweep.yaml": SWEEP,
        "more/other.yml": SWEEP,
        "broken.yaml": SWEEP.replace("values", "valus"),
        "ignored.yaml": SWEEP,
        "foreign.yaml": "kind: Deployment\n",
        "data.json": "[1, 2]",
        "script.py": "print('no DAG here')\n",
        ".airflowignore": "ignored.yaml\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def bag_of(path: Path, folder: Path) -> Any:
    """Parse one file as the DAG processor and the tasks do."""
    return BundleDagBag(
        dag_folder=str(path), bundle_path=folder, bundle_name="test", safe_mode=False, load_op_links=False
    )


def test_airflow_has_what_we_extend() -> None:
    """The registry and the listing function that ``register`` relies on are there, and wrapped once."""
    assert discovery.register() is True
    importer = get_importer_registry().get_importer("any.yaml")
    assert type(importer).__name__ == "PolyaxonfileImporter"
    assert vars(manager)["list_py_file_paths"].lists_polyaxonfiles
    before = vars(manager)["list_py_file_paths"]
    discovery.register()
    assert vars(manager)["list_py_file_paths"] is before


def test_only_polyaxonfiles_are_listed(dags: Path) -> None:
    """Broken ones too; foreign YAML and JSON, and what ``.airflowignore`` names, are not."""
    found = {Path(name).relative_to(dags).as_posix() for name in list_py_file_paths(dags, safe_mode=True)}
    assert found == {"sweep.yaml", "more/other.yml", "broken.yaml"}


def test_a_polyaxonfile_is_its_own_dag_file(dags: Path) -> None:
    """Its DAG's file is the YAML; the path in the bundle too."""
    bag = bag_of(dags / "more" / "other.yml", dags)
    assert bag.import_errors == {}
    dag = bag.dags["other"]
    assert (dag.fileloc, dag.relative_fileloc) == (str(dags / "more" / "other.yml"), "more/other.yml")


def test_a_broken_file_has_its_own_import_error(dags: Path) -> None:
    """With line, column and path."""
    bag = bag_of(dags / "broken.yaml", dags)
    assert bag.dags == {}
    assert list(bag.import_errors) == ["broken.yaml"]
    assert "broken.yaml:4:" in bag.import_errors["broken.yaml"]
    assert "hptuning.matrix.x" in bag.import_errors["broken.yaml"]


def test_foreign_yaml_is_left_alone(dags: Path) -> None:
    """Neither DAG nor error."""
    bag = bag_of(dags / "foreign.yaml", dags)
    assert (bag.dags, bag.import_errors) == ({}, {})


def test_an_extension_that_belongs_to_others_stays_theirs(caplog: pytest.LogCaptureFixture) -> None:
    """We do not take YAML away from another importer; the log says what to do."""

    class Other:
        """Somebody else's importer."""

    importers = get_importer_registry()._importers
    ours = importers[".yml"]
    importers[".yml"] = Other()  # type: ignore[assignment]
    try:
        discovery.register()
        assert isinstance(importers[".yml"], Other)
        assert "Other" in caplog.text
    finally:
        importers[".yml"] = ours


@pytest.fixture
def without_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow that reads no YAML files itself."""
    importers = get_importer_registry()._importers
    others = {extension: one for extension, one in importers.items() if extension not in discovery.EXTENSIONS}
    monkeypatch.setattr(get_importer_registry(), "_importers", others)


def test_the_loader_leaves_alone_what_airflow_reads_itself(dags: Path) -> None:
    """Otherwise each DAG would be there twice."""
    namespace: dict[str, Any] = {}
    load(str(dags / "loader.py"), namespace)
    assert namespace == {}


@pytest.mark.usefixtures("without_importer")
def test_the_loader_gives_the_same_dags(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sweep beside it; a broken one as a DAG that says so; their file stays the YAML."""
    monkeypatch.delenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", raising=False)
    namespace: dict[str, Any] = {}
    load(str(dags / "loader.py"), namespace)
    found = {dag.dag_id: dag for dag in namespace.values()}
    assert set(found) == {"sweep", "other", "broken_broken"}
    assert "hptuning.matrix.x" in (found["broken_broken"].doc_md or "")
    found["sweep"].fileloc = str(dags / "loader.py")
    assert found["sweep"].fileloc == str(dags / "sweep.yaml")


@pytest.mark.usefixtures("without_importer")
def test_the_loader_parses_only_the_dag_of_the_task(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a task's process nothing else is built."""
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "sweep")
    namespace: dict[str, Any] = {}
    load(str(dags / "loader.py"), namespace)
    assert [dag.dag_id for dag in namespace.values()] == ["sweep"]
