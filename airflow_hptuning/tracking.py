"""What a training script may use inside a trial: report metrics, read parameters, find the outputs directory.

One file without dependencies, for Python 3.7 and later: import it as ``airflow_hptuning.tracking`` (in every
local trial it can be imported, installed or not), or copy it next to the script::

    from airflow_hptuning.tracking import get_params, log_metrics

    params = get_params()
    for epoch in range(10):
        log_metrics(step=epoch, loss=train(**params))

A metric is a line of JSON on the standard output, such as ``{"step": 3, "loss": 0.41}``: nothing is sent
anywhere, and a script that prints such lines itself needs nothing of this file. Outside a trial the lines are
printed just the same, so that a script can be run by hand; a warning says so once.

Where lines may get lost (a pod whose log rotates), ``HPTUNING_TERMINATION_LOG`` names a file in which a
summary is kept: ``{"hptuning": 1, "step": 3, "metrics": {"loss": [last, lowest, highest]}}``, at most 4096
bytes.

Polyaxon's spelling works too: ``from polyaxon_client.tracking import Experiment``.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

PROTOCOL_VERSION = 1
"""Version of the lines and of the summary; it rises when an older reader could misread them."""

_SUMMARY_BYTES = 4096
"""What Kubernetes keeps of a container's termination message."""

_SUMMARY_INTERVAL = 0.5


def log_metrics(step: Any = None, **metrics: Any) -> None:
    """Report metrics.

    Args:
        step: Where on the x-axis the values belong, such as the epoch or the batch.
        metrics: Values by name: numbers, or what ``float`` understands (scalars of NumPy, tensors of one
            element). NaN and infinities are allowed. What is no number is left out with a warning: reporting
            must never end a training.
    """
    if not _in_trial():
        _warn("not inside a trial of airflow-hptuning; metrics are only printed")
    values = {name: _number(name, value) for name, value in metrics.items()}
    reported = {name: value for name, value in values.items() if value is not None}
    if not reported:
        return
    at = None if step is None else _number("step", step)
    line = json.dumps(reported if at is None else dict(step=at, **reported))
    stream = _stream()
    # One write for the whole line: other threads and processes write to the same pipe.
    stream.write(line + "\n")
    stream.flush()
    _summary.add(at, reported)


def get_params() -> dict[str, Any]:
    """Return constants of the file, searched values and resource of the trial; empty outside a trial."""
    params = _json("POLYAXON_PARAMS")
    if params is None:
        params = _json("POLYAXON_DECLARATIONS")
    return params if isinstance(params, dict) else {}


def get_outputs_path() -> str | None:
    """Return the directory (or prefix) for what the trial writes; None outside a trial.

    A directory is created. Trials that continue one another (Hyperband with ``resume``) share one.
    """
    path = os.environ.get("HPTUNING_OUTPUTS_PATH") or os.environ.get("POLYAXON_RUN_OUTPUTS_PATH") or None
    if path is not None and "://" not in path:
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            _warn(f"the outputs directory cannot be created: {error}")
    return path


def get_resource() -> int | float | None:
    """Return the amount of the resource that the trial may use (Hyperband); None if there is none."""
    resource = _json("HPTUNING_RESOURCE")
    return resource if isinstance(resource, (int, float)) else None


def get_trial_id() -> str | None:
    """Return the id of the trial; None outside a trial."""
    return os.environ.get("HPTUNING_TRIAL_ID") or None


# Polyaxon's names, so that scripts written for it run unchanged.


def get_declarations() -> dict[str, Any]:
    """Return what ``get_params`` returns: the name before Polyaxon 0.5."""
    return get_params()


def get_log_level() -> str | None:
    """Return the log level of the file, such as ``INFO``."""
    return os.environ.get("POLYAXON_LOG_LEVEL") or None


def get_data_paths() -> Any:
    """Return the data paths by name; None if there are none."""
    return _json("POLYAXON_RUN_DATA_PATHS")


def get_outputs_refs_paths() -> Any:
    """Return the outputs paths of the runs that the file refers to; None if there are none."""
    return _json("POLYAXON_REFS_OUTPUTS_PATHS")


def get_experiment_info() -> Any:
    """Return what identifies the trial and its sweep in Polyaxon's words; None outside a trial."""
    return _json("POLYAXON_EXPERIMENT_INFO")


def get_job_info() -> Any:
    """Return None: no trial is a Polyaxon job."""
    return _json("POLYAXON_JOB_INFO")


def get_task_info() -> Any:
    """Return role and index in a distributed run; None in others."""
    return _json("POLYAXON_TASK_INFO")


def get_cluster_def() -> Any:
    """Return the cluster of a distributed run; None in others."""
    return _json("POLYAXON_CLUSTER")


def get_tf_config(envvar: str | None = "TF_CONFIG") -> dict[str, Any]:
    """Return the configuration of TensorFlow's distributed runs.

    Args:
        envvar: Environment variable that is set to it; None sets none.
    """
    config = {
        "cluster": get_cluster_def(),
        "task": get_task_info(),
        "model_dir": get_outputs_path(),
        "environment": "cloud",
    }
    if envvar:
        os.environ[envvar] = json.dumps(config)
    return config


class OutputsStore:
    """The part of Polyaxon's outputs store that scripts use: copies files into the outputs directory."""

    def upload_file(self, filename: str, *_: Any, **__: Any) -> None:
        """Copy a file into the outputs directory.

        Args:
            filename: The file; one that is there already stays as it is.
        """
        self._copy(filename, os.path.basename(os.path.normpath(filename)))

    def upload_dir(self, dirname: str, *_: Any, **__: Any) -> None:
        """Copy a directory with all that is in it into the outputs directory.

        Args:
            dirname: The directory; one that is there already stays as it is.
        """
        top = os.path.normpath(dirname)
        for folder, _folders, names in os.walk(top):
            for name in names:
                source = os.path.join(folder, name)
                self._copy(source, os.path.join(os.path.basename(top), os.path.relpath(source, top)))

    @staticmethod
    def _copy(source: str, target: str) -> None:
        outputs = get_outputs_path()
        if outputs is None or "://" in outputs:
            _warn(f"{source} is not copied, as there is no outputs directory")
            return
        root = os.path.realpath(outputs)
        if os.path.realpath(source).startswith(root + os.sep):
            return
        path = os.path.join(root, target)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy2(source, path)


class Experiment:
    """Polyaxon's class for the running experiment: reports metrics, reads parameters.

    Any argument is accepted and none is needed: which trial runs is known from the environment. What only has
    a meaning on a Polyaxon server (parameters, tags, statuses, references, names) is accepted and does
    nothing.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        self.experiment_id = get_trial_id()
        self.group_id = os.environ.get("HPTUNING_SWEEP")
        self.last_status = None
        self.outputs_store = OutputsStore()

    def create(self, *_: Any, **__: Any) -> Experiment:
        """Return the experiment itself; the trial exists already."""
        return self

    def log_metrics(self, step: Any = None, **metrics: Any) -> None:
        """Report metrics; see ``log_metrics`` of this module."""
        log_metrics(step, **metrics)

    def log_artifact(self, file_path: str, *_: Any, **__: Any) -> None:
        """Copy a file into the outputs directory."""
        self.outputs_store.upload_file(file_path)

    def log_artifacts(self, dir_path: str, *_: Any, **__: Any) -> None:
        """Copy a directory into the outputs directory."""
        self.outputs_store.upload_dir(dir_path)

    log_output = log_artifact
    log_outputs = log_artifacts

    def _accept(self, *_: Any, **__: Any) -> None:
        """Do nothing: there is no server that would want to know."""

    log_params = log_tags = log_status = log_framework = log_backend = _accept
    log_data_ref = log_data_hash = log_code_ref = log_run_env = send_logs = _accept
    set_name = set_description = set_outputs_store = get_entity_data = _accept
    start = end = succeeded = stop = failed = _accept

    get_params = staticmethod(get_params)
    get_declarations = staticmethod(get_declarations)
    get_experiment_info = staticmethod(get_experiment_info)
    get_task_info = staticmethod(get_task_info)
    get_cluster_def = staticmethod(get_cluster_def)
    get_tf_config = staticmethod(get_tf_config)
    get_outputs_path = staticmethod(get_outputs_path)
    get_outputs_refs_paths = staticmethod(get_outputs_refs_paths)
    get_data_paths = staticmethod(get_data_paths)
    get_log_level = staticmethod(get_log_level)


class _Summary:
    """Last, lowest and highest value of each metric, kept in a small file if one is asked for."""

    def __init__(self) -> None:
        self._step: float | None = None
        self._values: dict[str, list[float | None]] = {}
        self._written = -math.inf
        self._is_dirty = False

    def add(self, step: float | None, values: dict[str, float]) -> None:
        if not os.environ.get("HPTUNING_TERMINATION_LOG"):
            return
        if not self._values:
            atexit.register(self.write)
        if step is not None and math.isfinite(step):
            self._step = step
        for name, value in values.items():
            kept = self._values.setdefault(name, [None, None, None])
            kept[0] = value if math.isfinite(value) else None
            if kept[0] is not None:
                kept[1] = kept[0] if kept[1] is None else min(kept[0], kept[1])
                kept[2] = kept[0] if kept[2] is None else max(kept[0], kept[2])
        self._is_dirty = True
        if time.monotonic() - self._written >= _SUMMARY_INTERVAL:
            self.write()

    def write(self) -> None:
        path = os.environ.get("HPTUNING_TERMINATION_LOG")
        if not path or not self._is_dirty:
            return
        data = self._encoded()
        # In place: Kubernetes mounts this very file, so it cannot be replaced by another one. One write makes
        # it whole before it is shortened; a reader ignores what follows the first object.
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, data)
                os.ftruncate(descriptor, len(data))
            finally:
                os.close(descriptor)
        except OSError as error:
            _warn(f"the summary of the metrics cannot be written: {error}")
        self._is_dirty = False
        self._written = time.monotonic()

    def _encoded(self) -> bytes:
        names = list(self._values)
        while True:
            metrics = {name: self._values[name] for name in names}
            document = {"hptuning": PROTOCOL_VERSION, "step": self._step, "metrics": metrics}
            data = json.dumps(document, separators=(",", ":")).encode("ascii")
            if len(data) <= _SUMMARY_BYTES or not names:
                return data
            # Those that were reported first are the ones that are reported all the time.
            names = names[: len(names) - 1 - (len(data) - _SUMMARY_BYTES) // 256]


_summary = _Summary()
_warned: set[str] = set()


def _in_trial() -> bool:
    return bool(os.environ.get("HPTUNING_TRIAL_ID") or os.environ.get("POLYAXON_PARAMS"))


def _stream() -> TextIO:
    # Inside a trial the metrics must reach the log, even while something (rich, a capture) has replaced the
    # stream; outside, they go wherever the user looks.
    if _in_trial() and sys.__stdout__ is not None and not sys.__stdout__.closed:
        return sys.__stdout__
    return sys.stdout


def _number(name: str, value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        # RuntimeError is what a tensor of several elements raises.
        _warn(f"the metric {name} is not reported, as its value is no number: {error}")
        return None
    return int(number) if name == "step" and number.is_integer() else number


def _json(variable: str) -> Any:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        _warn(f"the environment variable {variable} is no JSON: {error}")
        return None


def _warn(message: str) -> None:
    if message in _warned:
        return
    _warned.add(message)
    if sys.stderr is not None:
        sys.stderr.write(f"airflow_hptuning.tracking: {message}\n")
