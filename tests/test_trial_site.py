"""Tests of what is importable in every trial, in real interpreters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_hptuning.runners.local import TRIAL_SITE, LocalRunner
from airflow_hptuning.trials import TrialCommand
from tests.kits.runners import Lines

if TYPE_CHECKING:
    from pathlib import Path

EXPERIMENT = """
from polyaxon_client.tracking import (
    Experiment, get_data_paths, get_log_level, get_outputs_path, get_outputs_refs_paths,
)
Experiment().log_metrics(step=1, loss=0.5)
"""


def python(script: str, *flags: str, path: str = "", interpreter: str = sys.executable, **env: str) -> str:
    """Run a script with ``trial_site`` at the end of the path, and return what it prints."""
    pythonpath = os.pathsep.join(filter(None, [path, str(TRIAL_SITE)]))
    return subprocess.run(
        [interpreter, *flags, "-c", script],
        env={"HPTUNING_TRIAL_ID": "sweep.0", "PYTHONPATH": pythonpath, "PATH": os.environ["PATH"], **env},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def package(folder: Path, name: str, text: str) -> str:
    """Make a package with one statement and return where it can be imported from."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return str(folder)


# Without site packages (-S), airflow_hptuning is not installed, nor is anything else.


@pytest.mark.parametrize("flags", [(), ("-S",)], ids=["installed", "not installed"])
def test_polyaxon_scripts_report(flags: tuple[str, ...]) -> None:
    """An import of Polyaxon's client works with nothing installed."""
    assert python(EXPERIMENT, *flags) == '{"step": 1, "loss": 0.5}\n'


def test_polyaxon_helper_reports() -> None:
    """So does the one of the client before it."""
    script = """
from polyaxon_helper import (
    get_cluster_def, get_data_paths, get_declarations, get_experiment_info, get_job_info, get_log_level,
    get_outputs_path, get_outputs_refs_paths, get_task_info, get_tf_config, send_metrics,
)
send_metrics(accuracy=0.9)
print(get_declarations())
"""
    assert python(script, "-S", POLYAXON_PARAMS='{"lr": 1}') == "{\"accuracy\": 0.9}\n{'lr': 1}\n"


def test_scripts_believe_they_are_managed() -> None:
    """The setting that scripts ask for is true inside a trial."""
    script = "from polyaxon_client import settings; print(settings.IN_CLUSTER, settings.IS_MANAGED, settings.NO_OP)"
    assert python(script) == "True True False\n"
    assert python(script, HPTUNING_TRIAL_ID="") == "False False False\n"


@pytest.mark.parametrize("module", ["keras", "tensorflow.keras"])
def test_keras_callback(module: str, tmp_path: Path) -> None:
    """Polyaxon's callback for Keras reports each epoch, whichever Keras there is."""
    callbacks = tmp_path.joinpath(*module.split("."))
    callbacks.mkdir(parents=True)
    (callbacks / "callbacks.py").write_text("class Callback: pass")
    script = """
from polyaxon_client.tracking.contrib.keras import PolyaxonKeras
PolyaxonKeras().on_epoch_end(2, {"loss": 0.5, "acc": 0.9})
PolyaxonKeras(metrics=["acc", "other"]).on_epoch_end(3, {"loss": 0.5, "acc": 0.9})
PolyaxonKeras().on_epoch_end(4)
"""
    assert python(script, path=str(tmp_path)) == '{"step": 2, "loss": 0.5, "acc": 0.9}\n{"step": 3, "acc": 0.9}\n'


def test_fastai_callback(tmp_path: Path) -> None:
    """So does the one for fastai."""
    package(tmp_path, "fastai", "")
    (tmp_path / "fastai" / "callbacks.py").write_text(
        "class TrackerCallback:\n    def __init__(self, learn, monitor, mode): self.learn = learn\n",
    )
    script = """
from types import SimpleNamespace
from polyaxon_client.tracking import Experiment
from polyaxon_client.tracking.contrib.fastai import PolyaxonFastai
learn = SimpleNamespace(recorder=SimpleNamespace(names=["epoch", "train_loss", "acc"]))
PolyaxonFastai(learn=learn, experiment=Experiment(), monitor="acc").on_epoch_end(1, 0.5, [0.9])
"""
    assert python(script, path=str(tmp_path)) == '{"step": 1, "train_loss": 0.5, "acc": 0.9}\n'


@pytest.mark.parametrize("name", ["polyaxon_client", "polyaxon_helper", "airflow_hptuning"])
def test_real_packages_win(name: str, tmp_path: Path) -> None:
    """A real package that comes later on the path is loaded in our place, submodules and all."""
    folder = package(tmp_path, name, "from . import sub; REAL = __file__")
    (tmp_path / name / "sub.py").write_text("VALUE = 5")
    script = f"""
import sys; sys.path.append({folder!r})
import {name}, {name}.sub, importlib
print({name}.REAL == {name}.__file__ == {name}.__spec__.origin, {name}.sub.VALUE, {name} is sys.modules[{name!r}])
print(importlib.reload({name}).__file__ == {name}.REAL)
"""
    assert python(script, "-S") == "True 5 True\nTrue\n"


def test_an_editable_installation_wins() -> None:
    """The real package is found however it is installed: here it is, and all of it can be imported."""
    script = "import airflow_hptuning.trials, airflow_hptuning; print(airflow_hptuning.__version__)"
    assert python(script).strip()


def test_a_real_package_behind_a_finder_wins(tmp_path: Path) -> None:
    """Also when only an import hook knows where it is, as with some editable installations."""
    folder = package(tmp_path, "polyaxon_client", "REAL = True")
    script = f"""
import sys, importlib.machinery
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.machinery.PathFinder.find_spec(name, [{folder!r}]) if path is None else None
sys.meta_path.append(Finder)
import polyaxon_client
print(polyaxon_client.REAL)
"""
    assert python(script, "-S") == "True\n"


def test_a_real_package_that_fails_says_so(tmp_path: Path) -> None:
    """The error of the real package is the one that is seen, at every import."""
    folder = package(tmp_path, "polyaxon_client", "raise RuntimeError('real')")
    script = f"""
import sys; sys.path.append({folder!r})
for _ in range(2):
    try:
        import polyaxon_client
    except RuntimeError as error:
        print(error)
"""
    assert python(script, "-S") == "real\nreal\n"


def test_ours_can_be_demanded(tmp_path: Path) -> None:
    """A file whose build installs Polyaxon's client can still report to us."""
    folder = package(tmp_path, "polyaxon_client", "raise RuntimeError('real')")
    script = f"import sys; sys.path.append({folder!r})" + EXPERIMENT
    assert python(script, "-S", HPTUNING_POLYAXON_CLIENT="shim") == '{"step": 1, "loss": 0.5}\n'


def test_a_directory_of_the_name_is_not_the_real_package(tmp_path: Path) -> None:
    """A folder called polyaxon_client without code does not push ours aside."""
    (tmp_path / "polyaxon_client").mkdir()
    script = f"import sys; sys.path.append({str(tmp_path)!r})" + EXPERIMENT
    assert python(script, "-S") == '{"step": 1, "loss": 0.5}\n'


def test_a_copy_in_a_container(tmp_path: Path) -> None:
    """The folder works elsewhere with a copy of tracking.py in it."""
    site = tmp_path / "site"
    shutil.copytree(TRIAL_SITE, site)
    shutil.copy(TRIAL_SITE.parent / "tracking.py", site / "airflow_hptuning")
    script = "import airflow_hptuning.tracking as t; t.log_metrics(a=1); print(t.__file__)" + EXPERIMENT
    out = python(script, "-S", PYTHONPATH=str(site)).splitlines()
    assert out == ['{"a": 1.0}', str(site / "airflow_hptuning" / "tracking.py"), '{"step": 1, "loss": 0.5}']


def test_in_a_trial_of_the_local_runner() -> None:
    """A trial finds it all without being told."""
    lines = Lines()
    script = "python - <<'END'\nimport airflow_hptuning.tracking" + EXPERIMENT + "END"
    LocalRunner().run(TrialCommand(script, {"HPTUNING_TRIAL_ID": "x"}, ""), on_line=lines)
    assert lines == ['{"step": 1, "loss": 0.5}']


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9", "3.10", "3.12", "3.13"])
def test_other_pythons(version: str) -> None:
    """Images bring the Python they like."""
    interpreter = shutil.which(f"python{version}")
    if interpreter is None or subprocess.run([interpreter, "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip(f"there is no Python {version} here")
    assert python(EXPERIMENT, interpreter=interpreter) == '{"step": 1, "loss": 0.5}\n'
