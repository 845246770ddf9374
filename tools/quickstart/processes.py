"""Processes: knowing ours from others, ending exactly ours, and telling who sits on a port.

A process id alone proves nothing: ids are used again. A process that we started is known by its id together
with the time it started, and everything that descends from it by a mark in its environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MARK = "HPTUNING_QUICKSTART"
"""The environment variable that all processes of one quickstart share."""

_PROC = Path("/proc")
_LISTENING = "0A"


@dataclass(frozen=True)
class Process:
    """One process as we started it: the leader of a process group of its own.

    Attributes:
        name: What it is, for people.
        pid: Its id, which is its group's as well.
        started: When it started, in the words of the system; proves that the id was not used again.
    """

    name: str
    pid: int
    started: str

    @classmethod
    def of(cls, name: str, pid: int) -> Process:
        """Describe a running process."""
        return cls(name, pid, start_time(pid) or "")

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return self.started != "" and start_time(self.pid) == self.started

    def to_json(self) -> dict[str, str | int]:
        """Return the process as a JSON object."""
        return asdict(self)


def start_time(pid: int) -> str | None:
    """Return when a process started, or None when there is no such process (or only its remains)."""
    if _PROC.joinpath("self/stat").exists():
        try:
            # The name, in brackets, may hold blanks: what follows the last bracket is split.
            fields = _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        state, ticks = fields[0], fields[19]
        return None if state in "ZX" else ticks
    answer = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def marked(mark: str) -> list[int]:
    """Return the ids of all living processes that carry the mark (on Linux; elsewhere an empty list)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in _PROC.glob("[0-9]*"):
        try:
            environment = folder.joinpath("environ").read_bytes().split(b"\0")
        except OSError:  # It ended meanwhile, or is another user's.
            continue
        pid = int(folder.name)
        if wanted in environment and pid != os.getpid() and start_time(pid) is not None:
            found.append(pid)
    return found


def end(processes: Iterable[Process], mark: str, grace: float = 15) -> list[str]:
    """End the processes and all that descends from them; return the names of those that were running.

    Args:
        processes: The leaders; one that is no longer what we started is left alone.
        mark: Their mark, by which descendants are found that have left their group.
        grace: Seconds to end in good order, before they are ended at once.
    """
    ours = [process for process in processes if process.is_alive]
    for process in ours:
        _signal(os.killpg, process.pid, signal.SIGTERM)
    _wait(lambda: not any(process.is_alive for process in ours), grace)
    for pid in marked(mark):
        _signal(os.kill, pid, signal.SIGTERM)
    _wait(lambda: not marked(mark), grace / 3)
    for process in ours:
        if process.is_alive:
            _signal(os.killpg, process.pid, signal.SIGKILL)
    for pid in marked(mark):
        _signal(os.kill, pid, signal.SIGKILL)
    _wait(lambda: not any(process.is_alive for process in ours), grace / 3)
    return [process.name for process in ours]


def _signal(send: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    try:
        send(pid, number)
    except ProcessLookupError:
        return


def _wait(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)


def is_free(port: int) -> bool:
    """Whether a program could listen on the port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def owner_of(port: int) -> str:
    """Say who listens on a port, such as ``process 4711 (python -m http.server 8080)``."""
    inodes = _listening_inodes(port)
    for link in _PROC.glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) not in inodes:
                continue
            words = link.parents[1].joinpath("cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:  # It ended meanwhile, or is another user's.
            continue
        return f"process {link.parts[2]} ({words.decode(errors='replace').strip()[:100]})"
    return "another program (of another user, perhaps)"


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            rows = _PROC.joinpath(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
