"""Tests of bytes that become lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.runners.lines import MOST_BYTES, LineSplitter, shown


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_any_bytes_in_any_pieces(pieces: list[bytes]) -> None:
    """How the bytes arrive does not change the lines."""
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()
    whole = b"".join(pieces)
    expected = [line.removesuffix(b"\r").decode(errors="replace") for line in whole.split(b"\n")]
    assert lines == (expected if whole.rpartition(b"\n")[2] else expected[:-1])


def test_a_huge_line_loses_its_middle() -> None:
    """Of a line of megabytes the head and the tail are kept, and what is missing is said."""
    splitter = LineSplitter()
    for piece in (b"a" * 1_000_000, b"b" * 1_000_000, b"c" * 1_000_000):
        assert splitter.feed(piece) == []
    (line,) = splitter.feed(b"\n")
    assert line.startswith("a" * MOST_BYTES + " [... ")
    assert line.endswith(" bytes left out ...] " + "c" * MOST_BYTES)
    assert f"[... {3_000_000 - 2 * MOST_BYTES} bytes" in line
    assert splitter.feed(b"next\n") == ["next"]


def test_redraws_keep_the_state_that_is_being_drawn() -> None:
    """A progress bar is seen before its line ends, and no number is torn."""
    splitter = LineSplitter()
    splitter.feed(b"\r loss=0.5\r loss=0.4")
    assert [shown(line) for line in splitter.redraws()] == [" loss=0.5"]
    assert splitter.redraws() == []
    assert splitter.feed(b"2\n") == ["\r loss=0.42"]


@pytest.mark.parametrize("text", [b"loss=0.", b"", b"\r", b"\r \x08\r", b"line\n"])
def test_nothing_to_redraw(text: bytes) -> None:
    """Half a line without a carriage return is not a line yet."""
    splitter = LineSplitter()
    splitter.feed(text)
    assert splitter.redraws() == []


def test_redraws_beyond_the_bound() -> None:
    """A progress bar of megabytes is still shown, and one whose state has no end is not torn."""
    splitter = LineSplitter()
    splitter.feed(b"\rstate " * 100_000)
    (line,) = splitter.redraws()
    assert shown(line) == "state"
    assert splitter.finish() == ["\rstate "]
    splitter.feed(b"\r1\r" + b"x" * 1_000_000)
    assert splitter.redraws() == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("plain", "plain"),
        ("\x1b[1;32mgreen\x1b[0m", "green"),
        ("\r 10%\r 20%", " 20%"),
        ("\r 10%\r 20%\r", " 20%"),
        ("\x08\x08\x08done", "done"),
        ("\x1b]0;title\x07text", "text"),
        ("", ""),
        ("\r", ""),
    ],
)
def test_shown(line: str, text: str) -> None:
    """What is logged is what a terminal would show in the end."""
    assert shown(line) == text
