"""The local runner: a trial is a process group on the machine of the Airflow worker.

What a trial's process sees, from the weakest to the strongest:

- the environment of the worker, **except** every variable of Airflow itself (``AIRFLOW…``, ``_AIRFLOW…``,
  ``__AIRFLOW…``: configuration, connections, variables, home, tokens of the task), as a trial must not see
  the worker's credentials; ``AIRFLOW_CTX_…``, which only says which task runs, is kept;
- ``PATH`` with the directory of the worker's interpreter in front, so that ``python`` is that interpreter;
- ``PYTHONUNBUFFERED=1``;
- what the runner was given (``airflow.local.env``, the built environment);
- what the trial was given (``POLYAXON_…``, ``HPTUNING_…``);
- ``trial_site`` at the end of ``PYTHONPATH``, where ``airflow_hptuning.tracking`` and ``polyaxon_client``
  resolve.

A process that leaves the group (``setsid``, a daemon) leaves our reach as well.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_hptuning.runners.lines import LineSplitter, Tail
from airflow_hptuning.runners.processes import ProcessGroup
from airflow_hptuning.trials import Failure, FailureClass, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_hptuning.trials import TrialCommand

TRIAL_SITE: Final = Path(__file__).resolve().parent.parent / "trial_site"
"""Folder of what is importable in every trial."""

_READ_SIZE: Final = 64 * 1024
_STOP_INTERVAL: Final = 1.0
_REDRAW_INTERVAL: Final = 1.0
_WITHOUT_PIDFD: Final = 0.05

_DRAIN: Final = 2.0
"""Seconds that processes which outlive their trial's shell are given to write and to end by themselves."""

_KILL_GRACE: Final = 4.0
"""Airflow's supervisor kills a task five seconds after its SIGTERM; by then the trial should have ended."""

_GIVE_UP: Final = 5.0
"""Seconds after SIGKILL at which a process counts as one that cannot be ended."""

_KILLED: Final = Failure(FailureClass.INFRASTRUCTURE, "the task was killed while the trial ran")
"""Not a stop: early stopping did not ask for it, so the trial deserves another try."""


def worker_environment() -> dict[str, str]:
    """Return the environment of this process as a trial may see it: without Airflow's variables."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("AIRFLOW_CTX_") or not name.lstrip("_").startswith("AIRFLOW")
    }
    # Not resolved: the link in a virtual environment is what makes it one.
    own = str(Path(sys.executable).parent)
    inherited["PATH"] = os.pathsep.join([own, inherited.get("PATH") or os.defpath])
    inherited["PYTHONUNBUFFERED"] = "1"
    return inherited


class LocalRunner:
    """Runs one trial as a process group of its own, and ends all of it.

    Args:
        working_dir: Working directory of the trial; default: that of this process.
        env: Environment variables on top of the worker's.
        timeout: Seconds after which the trial is ended.
        grace: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        *,
        working_dir: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        grace: float = 10,
    ) -> None:
        self._working_dir = working_dir
        self._env = dict(env or {})
        self._timeout = timeout
        self._grace = grace
        self._killed = False
        self._watch: _Watch | None = None

    def run(
        self,
        command: TrialCommand,
        *,
        on_line: Callable[[str], None],
        should_stop: Callable[[], str | None] | None = None,
    ) -> Outcome:
        """Run a trial to its end; when this returns or raises, nothing of it runs any more.

        Args:
            command: What to run.
            on_line: Called with every line of its output, without the line's end. Carriage returns and escape
                codes are kept (``lines.shown`` removes them); lines beyond 128 KiB lose their middle.
            should_stop: Asked about every second; a text ends the trial, and is the reason.
        """
        started = time.time()
        if self._is_killed():
            return Outcome(None, started, started, failure=_KILLED)
        try:
            group = ProcessGroup(command.command, self._environment(command), self._prepared_dir(command))
        except (OSError, ValueError) as error:
            return Outcome(None, started, time.time(), failure=_not_started(error))
        watch = _Watch(group, on_line, should_stop, self._timeout, self._grace)
        self._watch = watch
        try:
            if self._is_killed():
                watch.kill()
            watch.run()
        finally:
            self._watch = None
            group.end(min(self._grace, _KILL_GRACE))
            group.close()
            watch.close()
        return watch.outcome(started)

    def kill(self) -> None:
        """End the trial: SIGTERM at once, SIGKILL soon after.

        Callable from a signal handler or another thread. Returns at once; ``run`` returns, or raises what the
        handler raises, when the trial has ended.
        """
        self._killed = True
        watch = self._watch
        if watch is not None:
            watch.kill()

    def _is_killed(self) -> bool:
        # It may become true between any two lines.
        return self._killed

    def _environment(self, command: TrialCommand) -> dict[str, str]:
        env = worker_environment() | self._env | dict(command.env)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(TRIAL_SITE)]))
        return env

    def _prepared_dir(self, command: TrialCommand) -> str | None:
        if self._working_dir is not None and not Path(self._working_dir).is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "the working directory does not exist", self._working_dir)
        if command.outputs_path and "://" not in command.outputs_path:
            Path(command.outputs_path).mkdir(parents=True, exist_ok=True)
        return self._working_dir


class _Watch:
    """The loop around a running group: output, deadlines, and the end."""

    def __init__(
        self,
        group: ProcessGroup,
        on_line: Callable[[str], None],
        should_stop: Callable[[], str | None] | None,
        timeout: float | None,
        grace: float,
    ) -> None:
        now = time.monotonic()
        self._group = group
        self._on_line = on_line
        self._should_stop = should_stop
        self._grace = grace
        self._splitter = LineSplitter()
        self._tail = Tail()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._timeout_at = None if timeout is None else now + timeout
        self._stop_at = now + _STOP_INTERVAL
        self._redraw_at: float | None = None
        self._kill_at: float | None = None
        self._killed_at: float | None = None
        self._drained_at: float | None = None
        self._pause = 0.005
        self._is_open = True
        self._kill_requested: float | None = None
        self._exit_code: int | None = None
        self._timed_out = False
        self._stopped: str | None = None
        self._failure: Failure | None = None

    def kill(self) -> None:
        """Ask for the end from wherever we are called; the loop does the rest."""
        self._kill_requested = time.monotonic()
        self._group.signal(signal.SIGTERM)
        try:
            os.write(self._wake_write, b"k")
        except OSError:
            # Full: it is awake. Closed: the loop has ended.
            return

    def run(self) -> None:
        """Return when the group has ended and its output is read."""
        self._selector.register(self._group.output, selectors.EVENT_READ, self._read)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._awake)
        if self._group.exited is not None:
            self._selector.register(self._group.exited, selectors.EVENT_READ, self._exit)
        while not self._is_over():
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._look_at_the_clock()
        self._flush(self._splitter.finish())

    def close(self) -> None:
        """Release the descriptors of the loop."""
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def outcome(self, started: float) -> Outcome:
        """Say how it ended."""
        return Outcome(
            exit_code=self._exit_code,
            started=started,
            ended=time.time(),
            log_tail=self._tail.shown(),
            timed_out=self._timed_out,
            stopped=self._stopped,
            failure=self._failure,
        )

    def _read(self) -> None:
        data = os.read(self._group.output, _READ_SIZE)
        if not data:
            self._is_open = False
            self._selector.unregister(self._group.output)
        self._flush(self._splitter.feed(data))
        if self._redraw_at is None and self._splitter.is_redrawing:
            self._redraw_at = time.monotonic() + _REDRAW_INTERVAL

    def _awake(self) -> None:
        os.read(self._wake_read, 64)

    def _exit(self) -> None:
        if not self._group.has_exited():
            return
        if self._group.exited is not None:
            self._selector.unregister(self._group.exited)
        self._exit_code = self._group.exit_code
        self._drained_at = time.monotonic() + _DRAIN
        if self._kill_requested is not None and self._kill_at is None:
            # The signal that kill() sent was faster than the loop.
            self._failure = _KILLED
        elif self._exit_code is None:
            reason = "the exit status was lost, as SIGCHLD is ignored in the process of the task"
            self._failure = Failure(FailureClass.INFRASTRUCTURE, reason)

    def _flush(self, lines: list[str]) -> None:
        self._tail.extend(lines)
        for line in lines:
            self._on_line(line)

    def _has_exited(self) -> bool:
        return self._drained_at is not None

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._killed_at is not None and now >= self._killed_at + _GIVE_UP:
            self._flush([f"hptuning: processes of the trial cannot be ended; given up after {_GIVE_UP:g} s"])
            return True
        if self._drained_at is None or self._group.is_alive():
            return False
        return not self._is_open or now >= self._drained_at

    def _patience(self) -> float | None:
        if self._has_exited():
            self._pause = min(2 * self._pause, 0.1)
            return self._pause
        times = [
            self._timeout_at,
            self._redraw_at,
            self._stop_at if self._should_stop is not None else None,
            self._kill_at if self._killed_at is None else self._killed_at + _GIVE_UP,
        ]
        now = time.monotonic()
        waits = [max(0.0, at - now) for at in times if at is not None]
        if self._group.exited is None:
            waits.append(_WITHOUT_PIDFD)
        return min(waits, default=None)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if not self._has_exited() and self._group.exited is None:
            self._exit()
        if self._redraw_at is not None and now >= self._redraw_at:
            self._redraw_at = now + _REDRAW_INTERVAL if self._splitter.is_redrawing else None
            self._flush(self._splitter.redraws())
        if self._kill_at is not None:
            self._kill_when_due(now)
        elif self._has_exited():
            self._end_stragglers(now)
        else:
            self._end_when_asked(now)

    def _end_when_asked(self, now: float) -> None:
        if self._kill_requested is not None:
            self._failure = _KILLED
            self._end(min(self._grace, _KILL_GRACE))
        elif self._timeout_at is not None and now >= self._timeout_at:
            self._timed_out = True
            self._end(self._grace)
        elif self._should_stop is not None and now >= self._stop_at:
            reason = self._should_stop()
            self._stop_at = time.monotonic() + _STOP_INTERVAL
            # It may have ended by itself while we asked; then nobody stopped it.
            if reason is not None and not self._group.has_exited():
                self._stopped = reason
                self._end(self._grace)

    def _end_stragglers(self, now: float) -> None:
        if self._drained_at is not None and now >= self._drained_at and self._group.is_alive():
            self._flush(["hptuning: the command has ended but left processes behind; they are ended now"])
            self._end(self._grace)

    def _end(self, grace: float) -> None:
        self._group.signal(signal.SIGTERM)
        self._kill_at = time.monotonic() + grace
        self._timeout_at = None
        self._should_stop = None

    def _kill_when_due(self, now: float) -> None:
        if self._kill_at is None or self._killed_at is not None:
            return
        if self._kill_requested is not None:
            self._kill_at = min(self._kill_at, self._kill_requested + _KILL_GRACE)
        if now >= self._kill_at:
            self._group.signal(signal.SIGKILL)
            self._killed_at = now


def _not_started(error: OSError | ValueError) -> Failure:
    users = isinstance(error, ValueError | NotADirectoryError) or error.errno == errno.E2BIG
    kind = FailureClass.USER_CODE if users else FailureClass.INFRASTRUCTURE
    return Failure(kind, f"the trial could not be started: {error}")
