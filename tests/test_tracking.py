"""Tests of what scripts use inside a trial."""

from __future__ import annotations

import ast
import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_hptuning import tracking
from airflow_hptuning.metrics import MetricLog, MetricParser
from airflow_hptuning.trials import Direction

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(tracking.__file__)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget warnings and values of other tests, and start outside a trial."""
    for name in os.environ:
        if name.startswith(("HPTUNING_", "POLYAXON_", "TF_CONFIG")):
            monkeypatch.delenv(name)
    importlib.reload(tracking)
    yield
    os.environ.pop("TF_CONFIG", None)


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a trial does: a process with the trial's environment."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "HPTUNING_TRIAL_ID": "sweep.0", **env},
        capture_output=True,
        text=True,
        check=True,
    )


def test_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A report is one line, the step first."""
    tracking.log_metrics(step=3, loss=0.5, acc=1)
    assert capsys.readouterr().out == '{"step": 3, "loss": 0.5, "acc": 1.0}\n'


def test_what_float_understands(capsys: pytest.CaptureFixture[str]) -> None:
    """Scalars of NumPy, booleans, NaN and infinities become numbers."""
    numpy = pytest.importorskip("numpy")
    tracking.log_metrics(
        numpy.int64(2), a=numpy.float32(0.5), b=True, c=math.nan, d=-math.inf, e=numpy.array([4.0]).sum()
    )
    line = capsys.readouterr().out
    values = {o.name: o.value for o in MetricParser().parse(line)}
    assert math.isnan(values.pop("c"))
    assert values == {"a": 0.5, "b": 1.0, "d": -math.inf, "e": 4.0}
    assert line.startswith('{"step": 2, ')


def test_what_is_no_number_ends_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    """A value that is no number is left out, and said once."""
    for _ in range(2):
        tracking.log_metrics(loss="high", acc=0.5, model=None)
    out, err = capsys.readouterr()
    assert out == '{"acc": 0.5}\n' * 2
    assert err.count("metric loss is not reported") == 1
    assert err.count("metric model is not reported") == 1


def test_nothing_to_report(capsys: pytest.CaptureFixture[str]) -> None:
    """A step alone is no report."""
    tracking.log_metrics(step=1)
    tracking.log_metrics(loss="high")
    assert capsys.readouterr().out == ""


def test_outside_a_trial_it_warns_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that is run by hand prints its metrics, and is told so once."""
    for _ in range(3):
        tracking.log_metrics(loss=0.5)
    out, err = capsys.readouterr()
    assert out.count("loss") == 3
    assert err.count("not inside a trial") == 1
    assert tracking.get_params() == {}
    assert tracking.get_outputs_path() is None
    assert tracking.get_resource() is None
    assert tracking.get_trial_id() is None


def test_inside_a_trial_metrics_reach_the_log() -> None:
    """A replaced standard output does not swallow them, and nothing is warned of."""
    script = """
import contextlib, io
from airflow_hptuning.tracking import log_metrics
with contextlib.redirect_stdout(io.StringIO()):
    print("swallowed")
    log_metrics(loss=1)
"""
    result = run(script)
    assert result.stdout == '{"loss": 1.0}\n'
    assert result.stderr == ""


def test_many_threads_and_processes_write_whole_lines() -> None:
    """Lines of several writers do not mix."""
    script = """
import os, threading
from airflow_hptuning.tracking import log_metrics
os.fork()
def report(thread):
    for step in range(200):
        log_metrics(step=step, **{"metric%d" % thread: step})
threads = [threading.Thread(target=report, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
"""
    lines = run(script).stdout.splitlines()
    assert len(lines) == 2 * 4 * 200
    assert all(set(json.loads(line)) > {"step"} for line in lines)


def test_getters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything that a trial is given can be read."""
    outputs = tmp_path / "a" / "b"
    monkeypatch.setenv("POLYAXON_PARAMS", '{"lr": 0.1, "epochs": 9}')
    monkeypatch.setenv("HPTUNING_OUTPUTS_PATH", str(outputs))
    monkeypatch.setenv("HPTUNING_TRIAL_ID", "sweep.7")
    monkeypatch.setenv("HPTUNING_RESOURCE", "27")
    monkeypatch.setenv("POLYAXON_LOG_LEVEL", "INFO")
    monkeypatch.setenv("POLYAXON_RUN_DATA_PATHS", '{"data": "/data"}')
    monkeypatch.setenv("POLYAXON_REFS_OUTPUTS_PATHS", '{"jobs": []}')
    monkeypatch.setenv("POLYAXON_EXPERIMENT_INFO", '{"project_name": "p"}')
    assert tracking.get_params() == tracking.get_declarations() == {"lr": 0.1, "epochs": 9}
    assert tracking.get_outputs_path() == str(outputs)
    assert outputs.is_dir()
    assert tracking.get_trial_id() == "sweep.7"
    assert tracking.get_resource() == 27
    assert tracking.get_log_level() == "INFO"
    assert tracking.get_data_paths() == {"data": "/data"}
    assert tracking.get_outputs_refs_paths() == {"jobs": []}
    assert tracking.get_experiment_info() == {"project_name": "p"}
    assert tracking.get_task_info() is tracking.get_cluster_def() is tracking.get_job_info() is None


def test_older_and_broken_variables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The name before Polyaxon 0.5 is read; what is no JSON is nothing, with a warning."""
    monkeypatch.setenv("POLYAXON_DECLARATIONS", '{"lr": 1}')
    assert tracking.get_params() == {"lr": 1}
    monkeypatch.setenv("POLYAXON_PARAMS", "lr=1")
    monkeypatch.setenv("HPTUNING_RESOURCE", "many")
    monkeypatch.delenv("POLYAXON_DECLARATIONS")
    assert tracking.get_params() == {}
    assert tracking.get_resource() is None
    assert capsys.readouterr().err.count("is no JSON") == 2


def test_an_outputs_path_that_is_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix of an object store is returned as it is; a path that cannot be made is returned with a warning."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYAXON_RUN_OUTPUTS_PATH", "gs://bucket/x")
    assert tracking.get_outputs_path() == "gs://bucket/x"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setenv("POLYAXON_RUN_OUTPUTS_PATH", "file/below")
    assert tracking.get_outputs_path() == "file/below"


def test_tf_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of TensorFlow is returned and put into the environment."""
    monkeypatch.setenv("POLYAXON_TASK_INFO", '{"type": "master", "index": 0}')
    config = tracking.get_tf_config()
    assert config == {
        "cluster": None,
        "task": {"type": "master", "index": 0},
        "model_dir": None,
        "environment": "cloud",
    }
    assert json.loads(os.environ["TF_CONFIG"]) == config
    assert tracking.get_tf_config(None) == config


def test_experiment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Polyaxon's class reports metrics, and nothing else reaches the log."""
    monkeypatch.setenv("POLYAXON_PARAMS", '{"lr": 0.1}')
    stream = sys.stdout
    monkeypatch.setattr(sys, "__stdout__", stream)
    experiment = tracking.Experiment("project", group_id=3, track_logs=False).create(name="x", tags=["a"])
    accepted: list[tuple[Any, ...]] = [
        (experiment.log_params, {"lr": 0.1, "reset": True}),
        (experiment.log_tags, {"tags": "a,b"}),
        (experiment.log_status, {"status": "running", "message": "m"}),
        (experiment.log_data_ref, {"data": [1], "data_name": "x"}),
        (experiment.log_framework, {"framework": "keras"}),
        (experiment.log_backend, {"backend": "native"}),
        (experiment.set_name, {"name": "x"}),
        (experiment.succeeded, {}),
        (experiment.failed, {"message": "m"}),
    ]
    for method, arguments in accepted:
        method(**arguments)
    experiment.log_metrics(step=1, loss=0.5)
    values = {"step": 2, "loss": 0.4}
    experiment.log_metrics(**values)
    assert capsys.readouterr().out == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n'
    assert experiment.get_params() == experiment.get_declarations() == {"lr": 0.1}
    assert tracking.Experiment.get_outputs_path() is None


def test_artifacts_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files and directories go into the outputs directory; those that are in it stay as they are."""
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("HPTUNING_OUTPUTS_PATH", str(outputs))
    (tmp_path / "model.pkl").write_text("m")
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "x").write_text("x")
    experiment = tracking.Experiment()
    experiment.log_artifact(str(tmp_path / "model.pkl"))
    experiment.log_artifacts(str(tmp_path / "logs") + "/")
    experiment.outputs_store.upload_file(str(outputs / "model.pkl"))
    experiment.outputs_store.upload_dir(str(outputs))
    assert sorted(str(p.relative_to(outputs)) for p in outputs.rglob("*")) == [
        "logs",
        "logs/deep",
        "logs/deep/x",
        "model.pkl",
    ]


def test_artifacts_without_a_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Outside a trial nothing is copied, and that is said."""
    (tmp_path / "file").touch()
    tracking.Experiment().log_artifact(str(tmp_path / "file"))
    assert "not copied" in capsys.readouterr().err


def test_the_summary_survives_lost_lines(tmp_path: Path) -> None:
    """The file holds last, lowest and highest values, up to date when the script has ended."""
    path = tmp_path / "log"
    path.write_text("old " * 1000)
    script = """
from airflow_hptuning.tracking import log_metrics
for step, loss in enumerate([3, 1, float("nan"), 2]):
    log_metrics(step=step, loss=loss)
"""
    run(script, HPTUNING_TERMINATION_LOG=str(path))
    assert json.loads(path.read_text()) == {"hptuning": 1, "step": 3, "metrics": {"loss": [2.0, 1.0, 3.0]}}
    log = MetricLog({"loss": Direction.MINIMIZE})
    log.restore(path.read_text())
    assert (log.last, log.best) == ({"loss": 2.0}, {"loss": 1.0})


def test_the_summary_is_there_while_the_script_runs(tmp_path: Path) -> None:
    """A script that is killed leaves one that is half a second old at most."""
    path = tmp_path / "log"
    script = """
import os, time
from airflow_hptuning.tracking import log_metrics
log_metrics(loss=1)
time.sleep(0.6)
log_metrics(loss=2)
log_metrics(loss=3)
os._exit(0)
"""
    run(script, HPTUNING_TERMINATION_LOG=str(path))
    assert json.loads(path.read_text())["metrics"] == {"loss": [2.0, 1.0, 2.0]}


def test_the_summary_is_bounded(tmp_path: Path) -> None:
    """It never exceeds what Kubernetes keeps, and leaves out what was reported last."""
    path = tmp_path / "log"
    script = """
from airflow_hptuning.tracking import log_metrics
log_metrics(loss=0.1)
log_metrics(**{"layer_with_a_long_name_%d" % n: 1 / (n + 1) for n in range(1000)})
"""
    run(script, HPTUNING_TERMINATION_LOG=str(path))
    data = path.read_bytes()
    assert 3000 < len(data) <= 4096
    assert json.loads(data)["metrics"]["loss"] == [0.1, 0.1, 0.1]


def test_a_summary_that_cannot_be_written_ends_no_training(tmp_path: Path) -> None:
    """The script goes on, with a warning."""
    result = run(
        "from airflow_hptuning.tracking import log_metrics; log_metrics(a=1); log_metrics(a=2)",
        HPTUNING_TERMINATION_LOG=str(tmp_path / "missing" / "log"),
    )
    assert result.stdout.count("\n") == 2
    assert result.stderr.count("cannot be written") == 1


def test_the_file_can_be_copied(tmp_path: Path) -> None:
    """It works alone, without the package and without any other."""
    (tmp_path / "tracking.py").write_bytes(SOURCE.read_bytes())
    script = "import tracking; tracking.log_metrics(loss=1); print(tracking.PROTOCOL_VERSION)"
    result = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=tmp_path,
        env={"HPTUNING_TRIAL_ID": "x"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == '{"loss": 1.0}\n1\n'


@pytest.mark.parametrize(
    "path",
    [SOURCE, *sorted((SOURCE.parent / "trial_site").rglob("*.py"))],
    ids=lambda path: str(path.relative_to(SOURCE.parent)),
)
def test_old_pythons_can_read_it(path: Path) -> None:
    """What runs inside trials keeps to the syntax of Python 3.7 and to the standard library, ourselves and hosts."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))
    own = {"airflow_hptuning", "_hptuning_site", "polyaxon_client", "keras", "tensorflow", "fastai"}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        for name in names:
            assert name.partition(".")[0] in own | sys.stdlib_module_names
