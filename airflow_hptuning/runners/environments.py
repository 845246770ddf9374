"""Environments: ``build.build_steps`` run once per sweep into a virtual environment that its local trials share.

The local runner has no images, so what an image would add by its build steps goes into a virtual environment
of the worker's Python. An environment is found by a hash of all that went into it: image, steps, variables,
version of Python, and the content of the files that the steps name (``requirements.txt``). It is built where
it stays, as virtual environments cannot be moved: a lock keeps other builders waiting, and a marker that is
written last tells a whole environment from the remains of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_hptuning.errors import BuildError
from airflow_hptuning.runners.local import LocalRunner
from airflow_hptuning.trials import TrialCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_MARKER: Final = ".complete"
_CREATE: Final = "{python} -m venv {venv}"
_HASHED_BYTES: Final = 1024 * 1024
"""Larger files that a step names are told apart by size and time only."""


def build_environment(
    steps: Sequence[str],
    env_vars: Iterable[tuple[str, str]] = (),
    *,
    root: Path,
    image: str | None = None,
    on_line: Callable[[str], None],
    working_dir: str | None = None,
) -> Path:
    """Return a virtual environment in which the steps have run; built if there is none yet.

    Args:
        steps: Shell commands, run one after the other by ``bash -c``; ``python`` and ``pip`` are the environment's.
        env_vars: Environment variables of the steps, as pairs.
        root: Directory of all environments; created.
        image: Image of the file; only tells environments apart, as there are no containers here.
        on_line: Called with every line that the build prints.
        working_dir: Working directory of the steps; default: that of this process.

    Raises:
        BuildError: A step failed; the message names it and shows its last lines. Nothing of it is used again.
    """
    variables = dict(env_vars)
    root.mkdir(parents=True, exist_ok=True)
    venv = root.resolve() / _key(steps, variables, image, working_dir)
    if _is_complete(venv):
        return venv
    with _locked(venv.with_suffix(".lock"), on_line):
        # Somebody else may have built it while we waited.
        if not _is_complete(venv):
            _build(venv, steps, variables, on_line, working_dir)
    return venv


def environment_variables(venv: Path, env_vars: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Return the variables that make a process use an environment.

    Args:
        venv: The environment.
        env_vars: Variables of the build, which hold for the trials as well; they may not replace the others.
    """
    path = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH") or os.defpath])
    return dict(env_vars) | {"PATH": path, "VIRTUAL_ENV": str(venv)}


def _key(steps: Sequence[str], variables: dict[str, str], image: str | None, working_dir: str | None) -> str:
    parts = {
        "image": image,
        "steps": list(steps),
        "env_vars": variables,
        "python": [platform.python_implementation(), sys.version, sys.base_prefix, platform.machine()],
        "files": _files(steps, Path(working_dir or ".")),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _files(steps: Iterable[str], directory: Path) -> dict[str, str]:
    found = {}
    for word in sorted({word for step in steps for word in _words(step)}):
        path = directory / word
        with contextlib.suppress(OSError, ValueError):
            if path.is_file():
                state = path.stat()
                small = state.st_size <= _HASHED_BYTES
                content = path.read_bytes() if small else f"{state.st_size} {state.st_mtime_ns}".encode()
                found[word] = hashlib.sha256(content).hexdigest()
    return found


def _words(step: str) -> list[str]:
    try:
        return shlex.split(step)
    except ValueError:
        return step.split()


def _is_complete(venv: Path) -> bool:
    # The second test follows the link: the Python that it was made of may have been removed since.
    return (venv / _MARKER).exists() and (venv / "bin" / "python").exists()


@contextlib.contextmanager
def _locked(path: Path, on_line: Callable[[str], None]) -> Iterator[None]:
    # The lock ends with its holder, however that ends; the file stays, as removing it would race.
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line("hptuning: waiting for another build of the same environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(
    venv: Path,
    steps: Sequence[str],
    variables: dict[str, str],
    on_line: Callable[[str], None],
    working_dir: str | None,
) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    try:
        create = _CREATE.format(python=shlex.quote(sys.executable), venv=shlex.quote(str(venv)))
        _run(create, "the virtual environment could not be made", LocalRunner(), on_line)
        runner = LocalRunner(working_dir=working_dir, env=environment_variables(venv, variables.items()))
        for number, step in enumerate(steps, start=1):
            on_line(f"hptuning: build step {number} of {len(steps)}: {step}")
            _run(step, f"build step {number} of {len(steps)} failed", runner, on_line)
        (venv / _MARKER).touch()
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise


def _run(step: str, complaint: str, runner: LocalRunner, on_line: Callable[[str], None]) -> None:
    outcome = runner.run(TrialCommand(step, {}, ""), on_line=on_line)
    if outcome.exit_code == 0 and outcome.failure is None:
        return
    why = outcome.failure.reason if outcome.failure else f"exit code {outcome.exit_code}"
    raise BuildError("\n".join([f"{complaint} ({why}): {step}", *outcome.log_tail]))
