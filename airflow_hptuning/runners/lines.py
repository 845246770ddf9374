"""Bytes of a trial's output become lines: decoded, bounded, and not held back for ever."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_BYTES: Final = 64 * 1024
"""Bytes kept of the head of a line, and again of its tail; what is between is left out."""

TAIL_LINES: Final = 20
"""Lines of output that an outcome keeps."""

_TAIL_WIDTH: Final = 500

_CUT: Final = b" [... %d bytes left out ...] "

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]?|\][^\x07\x1b]*+(?:\x07|\x1b\\)?|[@-Z\\^_])?")


def shown(line: str) -> str:
    r"""Return what a terminal would show of a line: the last state of a progress bar, without escape codes.

    Args:
        line: A line, in which carriage returns separate the states of a progress bar.
    """
    text = _ESCAPE.sub("", line) if "\x1b" in line else line
    # PostgreSQL cannot store a NUL.
    return text.rstrip("\r\b ").rpartition("\r")[2].replace("\b", "").replace("\0", "\ufffd")


class Tail:
    """The last lines of an output, as a failure shows them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)

    def extend(self, lines: Iterable[str]) -> None:
        """Take in lines."""
        self._lines.extend(lines)

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()

    @property
    def last(self) -> str:
        """The last line as it came; empty if there is none."""
        return self._lines[-1] if self._lines else ""

    def shown(self) -> tuple[str, ...]:
        """Return the lines as a terminal would show them, long ones cut."""
        return tuple(shown(line)[:_TAIL_WIDTH] for line in self._lines)


class LineSplitter:
    """Cuts a stream of bytes into lines of text, whatever the bytes are.

    A line may hold carriage returns: those of a progress bar that is redrawn before the line ends. Bytes that
    are no UTF-8 become replacement characters.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    def feed(self, data: bytes) -> list[str]:
        """Take in bytes; return the lines that they complete."""
        first, *others = data.split(b"\n")
        self._keep(first)
        if not others:
            return []
        rest = others.pop()
        lines = [self._take(), *(_decode(line) for line in others)]
        self._keep(rest)
        return lines

    def redraws(self) -> list[str]:
        """Return what a progress bar has drawn so far, except for the state that it may still be drawing.

        Text without carriage returns is kept until its line ends: half a line could be half a number.
        """
        done, separator, state = self._joined().rpartition(b"\r")
        # Where bytes were left out, the state that is being drawn may have lost its beginning.
        if not done.strip(b"\r\b ") or (self._cut and _CUT % self._cut in state):
            return []
        self._clear()
        self._keep(separator + state)
        return [_decode(done)]

    def finish(self) -> list[str]:
        """Return the last line if it had no end."""
        return [self._take()] if self._head else []

    @property
    def is_redrawing(self) -> bool:
        """Whether the unfinished line holds a carriage return, so that ``redraws`` is worth a try."""
        return b"\r" in self._head or b"\r" in self._tail

    def _keep(self, data: bytes) -> None:
        room = MOST_BYTES - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            excess = len(self._tail) - MOST_BYTES
            if excess > 0:
                del self._tail[:excess]
                self._cut += excess

    def _take(self) -> str:
        line = self._joined()
        self._clear()
        return _decode(line)

    def _joined(self) -> bytes:
        middle = _CUT % self._cut if self._cut else b""
        return bytes(self._head) + middle + bytes(self._tail)

    def _clear(self) -> None:
        self._head.clear()
        self._tail.clear()
        self._cut = 0


def _decode(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").removesuffix("\r")
