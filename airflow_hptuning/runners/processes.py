"""One shell script in a process group of its own that does not outlive us.

Two processes are started per script:

- a *guard*, a shell that waits for the end of a pipe that only we hold. When we die without a word, by
  SIGKILL too, it ends the group of the script;
- the script, in a session of its own. It is held back by a first shell until the guard knows its group, so
  there is no moment at which it could be left behind.

The session matters twice: Airflow's supervisor signals the whole process group of a task, guard and script
must not be hit by that; and whatever the script starts stays in the group, so that all of it can be ended
together.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_GUARD: Final = """
trap '' HUP INT TERM
read -r group || exit 0
read -r word && exit 0
kill -s TERM -- "-$group" 2>/dev/null || exit 0
for second in 1 2 3 4 5; do
    sleep 1
    kill -s 0 -- "-$group" 2>/dev/null || exit 0
done
kill -s KILL -- "-$group" 2>/dev/null
"""

_HELD_BACK: Final = 'read -r go || exit 125; exec "$0" -c "$1" </dev/null'

_SHELLS: Final = ("/bin/bash", "/bin/sh")


class ProcessGroup:
    """A running script with all that it starts.

    Args:
        script: The shell script.
        env: Its whole environment.
        working_dir: Its working directory.

    Attributes:
        output: File descriptor of its standard output and error, merged.
        exited: File descriptor that becomes readable when the script's shell has exited; None where the
            system has no such thing (``has_exited`` must be asked).

    Raises:
        OSError: It cannot be started.
        ValueError: The script or the environment holds what no process can be given, such as a NUL.
    """

    def __init__(self, script: str, env: Mapping[str, str], working_dir: str | None) -> None:
        self._descriptors: list[int] = []
        self._pgid: int | None = None
        self._returncode: int | None = None
        self._is_reaped = False
        self.exited: int | None = None
        guard_read, self._guard_write = self._pipe()
        go_read, go_write = self._pipe()
        self.output, output_write = self._pipe()
        # Whatever fails in here closes the pipes: the guard ends, and the script, if it is there, never goes.
        try:
            self._guard = _start_guard(guard_read)
            try:
                self._process = _start_held_back(script, env, working_dir, go_read, output_write)
            except BaseException:
                self._close(self._guard_write)
                self._guard.wait()
                raise
            self._pgid = self._process.pid
            self.exited = self._open_pidfd(self._process.pid)
            os.write(self._guard_write, b"%d\n" % self._process.pid)
            os.write(go_write, b"go\n")
            for descriptor in (guard_read, go_read, go_write, output_write):
                self._close(descriptor)
        except BaseException:
            self._close_descriptors()
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group; callable from a signal handler."""
        if self._pgid is None:
            return
        try:
            os.killpg(self._pgid, number)
        except (ProcessLookupError, PermissionError):
            # Gone, or all that is left belongs to another user (sudo): there is nothing we could do.
            return

    def has_exited(self) -> bool:
        """Whether the script's shell has exited; does not block."""
        if self._is_reaped:
            return True
        try:
            pid, status = os.waitpid(self._process.pid, os.WNOHANG)
        except ChildProcessError:
            # Popen would call this success.
            self._is_reaped = True
            self._process.returncode = 255
            return True
        if pid:
            self._is_reaped = True
            self._returncode = self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._is_reaped

    @property
    def exit_code(self) -> int | None:
        """Exit status of the script's shell once it has exited, negative for a signal.

        None when the status is lost, which happens where SIGCHLD is ignored in this process.
        """
        return self._returncode

    def is_alive(self) -> bool:
        """Whether any process of the group is left, zombies aside."""
        if self._pgid is None:
            return False
        try:
            os.killpg(self._pgid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _has_living_member(self._pgid)

    def end(self, grace: float) -> None:
        """End the group and wait for it: SIGTERM, then SIGKILL to what is left after ``grace`` seconds."""
        if not self._is_running():
            return
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            self.signal(number)
            if self._wait(patience):
                return

    def close(self) -> None:
        """Release everything; the group must have ended."""
        if self._pgid is None:
            return
        # A process whose first thread has ended looks like a zombie but may run on.
        self.signal(signal.SIGKILL)
        self._pgid = None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._guard_write, b"done\n")
        self._close_descriptors()
        try:
            self._guard.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def _wait(self, patience: float) -> bool:
        until, pause = time.monotonic() + patience, 0.005
        while self._is_running():
            if time.monotonic() >= until:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        return True

    def _is_running(self) -> bool:
        return not self.has_exited() or self.is_alive()

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._descriptors.extend(ends)
        return ends

    def _open_pidfd(self, pid: int) -> int | None:
        try:
            descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # Not Linux, a kernel before 5.3, or a sandbox that forbids it.
            return None
        self._descriptors.append(descriptor)
        return descriptor

    def _close(self, descriptor: int) -> None:
        self._descriptors.remove(descriptor)
        os.close(descriptor)

    def _close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def _start_guard(pipe: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own script
        ["/bin/sh", "-c", _GUARD],
        stdin=pipe,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _start_held_back(
    script: str,
    env: Mapping[str, str],
    working_dir: str | None,
    go: int,
    output: int,
) -> subprocess.Popen[bytes]:
    shell = next((path for path in _SHELLS if os.access(path, os.X_OK)), _SHELLS[-1])
    return subprocess.Popen(  # noqa: S603 - running the user's command is the purpose
        [shell, "-c", _HELD_BACK, shell, script],
        stdin=go,
        stdout=output,
        stderr=output,
        cwd=working_dir,
        env=dict(env),
        start_new_session=True,
    )


def _has_living_member(pgid: int) -> bool:
    """Look into /proc, as a group of zombies that nobody reaps (PID 1 of a container) still takes signals."""
    members = [state for state, group in _processes() if group == pgid]
    if not members and not Path("/proc/self/stat").exists():
        return True
    return any(state not in "ZX" for state in members)


def _processes() -> list[tuple[str, int]]:
    found = []
    for entry in os.scandir("/proc") if os.path.isdir("/proc") else ():  # noqa: PTH112 - as os.scandir
        if entry.name.isdigit():
            try:
                text = Path("/proc", entry.name, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The name in parentheses may hold anything; state, parent and group follow it.
            state, _, group = text.rpartition(")")[2].split()[:3]
            found.append((state, int(group)))
    return found
