"""Text of a polyaxonfile to a tree whose every node knows its place.

The tree is built from parser events rather than by PyYAML's composer, so that hostile text is refused while it is
read: nesting, the number of values (aliases count as what they stand for) and the size have limits, and no tag can
make anything but plain data. Nodes, not plain values, travel to the migration: what it moves keeps its place.

Differences from YAML 1.1 as PyYAML reads it: no base-60 numbers (``1:5:1`` is text), ``1e-3`` is a number, dates
stay text, a key that is given twice is an error, and keys are text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from attrs import frozen

from airflow_hptuning.errors import PolyaxonfileError, Problem, Severity
from airflow_hptuning.polyaxonfile.scalars import MERGE, TAG, UnknownTagError, tag_of, value_of
from airflow_hptuning.polyaxonfile.tree import Mark, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 10_000_000
MAX_NODES = 200_000
MAX_DEPTH = 60


@frozen
class Document:
    """A polyaxonfile as a tree."""

    root: Node
    text: str
    file: str


def read(source: str | bytes, *, file: str = "<text>") -> Document:
    """Read the text of a polyaxonfile.

    Args:
        source: The text, or its bytes (UTF-8, or UTF-16 with a byte order mark).
        file: What to call it in problems.

    Returns:
        The document; its root is a mapping.

    Raises:
        PolyaxonfileError: The text is not one YAML mapping with text keys, or exceeds a limit.
    """
    reader = _Reader(file)
    root = reader.read(source)
    if reader.problems or root is None:
        raise PolyaxonfileError(reader.problems)
    return Document(root, reader.text, file)


# The control characters that YAML forbids, and lone surrogates (which a Python str can hold).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class _StopReading(Exception):  # noqa: N818 - a way out of nested calls, not an error
    """Nothing after this point can be understood."""


class _Reader:
    """One pass over the text; collects problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.text = ""
        self.problems: list[Problem] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def read(self, source: str | bytes) -> Node | None:
        try:
            self.text = self._decode(source)
            self._check_characters()
            return self._document()
        except _StopReading:
            return None
        except yaml.YAMLError as error:
            self._syntax_problem(error)
            return None

    def _problem(self, mark: Mark, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, mark.line, mark.column, "", Severity.ERROR, message, hint))

    def _stop(self, mark: Mark, message: str, hint: str = "") -> _StopReading:
        self._problem(mark, message, hint)
        return _StopReading()

    def _decode(self, source: str | bytes) -> str:
        if len(source) > MAX_BYTES:
            raise self._stop(Mark(0, 0), f"the file is larger than {MAX_BYTES // 1_000_000} MB")
        if isinstance(source, str):
            return source.removeprefix("\ufeff")
        encoding = "utf-8"
        for bom, name in _BOMS:
            if source.startswith(bom):
                source, encoding = source[len(bom) :], name
                break
        try:
            return source.decode(encoding)
        except UnicodeDecodeError as error:
            before = source[: error.start].decode(encoding, errors="replace")
            raise self._stop(_end_of(before), f"the file is not {encoding.upper()} text", "Save it as UTF-8.") from None

    def _check_characters(self) -> None:
        found = _FORBIDDEN.search(self.text)
        if found:
            shown = f"U+{ord(found.group()):04X}"
            raise self._stop(_end_of(self.text[: found.start()]), f"character {shown} is not allowed in YAML")

    def _document(self) -> Node:
        loader = _LOADER(self.text)
        try:
            events = iter(loader.get_event, None)
            root = self._first_document(events)
        finally:
            loader.dispose()
        if not isinstance(root.value, dict):
            hint = "A polyaxonfile begins with lines such as `version: 1` and `kind: group`."
            raise self._stop(root.mark, f"the file holds {_kind(root.value)}, not a mapping", hint)
        return root

    def _first_document(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise self._stop(_mark(event), "the file holds more than one document", "Put each in a file.")
            if isinstance(event, _NODE_EVENTS):
                root = self._node(event, events, 1)
        if root is None:
            raise self._stop(Mark(1, 1), "the file is empty")
        return root

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        mark = _mark(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._stop(mark, f"the file holds more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self._stop(mark, f"the file is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, mark, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = self._build(event, events, mark, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, mark: Mark, depth: int) -> Node:
        if event.anchor not in self._anchors:
            raise self._stop(mark, f"`*{event.anchor}` refers to an anchor that is not defined before it")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._stop(mark, f"`*{event.anchor}` refers to itself")
        if depth + node.depth - 1 > MAX_DEPTH:
            raise self._stop(mark, f"the file is nested more than {MAX_DEPTH} levels deep")
        return node

    def _build(self, event: Any, events: Iterator[Any], mark: Mark, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._scalar(event, mark), mark)
        if event.tag not in _CONTAINER_TAGS[type(event)]:
            self._problem(mark, f"the tag `{event.tag}` is not allowed", "A polyaxonfile holds plain data only.")
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(events, mark, depth)
        else:
            node = self._mapping(events, mark, depth)
        if node.size > MAX_NODES:
            hint = "Aliases count as what they stand for."
            raise self._stop(mark, f"the file holds more than {MAX_NODES} values", hint)
        return node

    def _sequence(self, events: Iterator[Any], mark: Mark, depth: int) -> Node:
        node = Node([], mark)
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            child = self._node(event, events, depth + 1)
            node.value.append(child)
            _grow(node, child)
        return node

    def _mapping(self, events: Iterator[Any], mark: Mark, depth: int) -> Node:
        node = Node({}, mark)
        merged: list[Node] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            is_merge = isinstance(event, yaml.ScalarEvent) and _tag(event) == MERGE
            key, key_mark = ("<<" if is_merge else self._key(event, events, depth)), _mark(event)
            child = self._node(next(events), events, depth + 1)
            if is_merge:
                merged += self._merge_sources(child, key_mark)
            elif key is not None and self._is_new(node, key, key_mark):
                node.put(key, child, key_mark)
            _grow(node, child)
        for source in merged:
            for key, child in source.value.items():
                if key not in node.value:
                    node.put(key, child, source.keys[key])
        return node

    def _key(self, event: Any, events: Iterator[Any], depth: int) -> str | None:
        mark = _mark(event)
        key = self._node(event, events, depth + 1).value
        if isinstance(key, str):
            return key
        if isinstance(event, yaml.ScalarEvent):
            self._problem(mark, f"the key `{event.value}` is not text", f'Write "{event.value}" in quotes.')
        else:
            self._problem(mark, f"a key must be text, not {_kind(key)}", 'Quote text that has braces: "{{ x }}".')
        return None

    def _is_new(self, node: Node, key: str, mark: Mark) -> bool:
        if key not in node.value:
            return True
        first = node.keys[key]
        self._problem(mark, f"the key `{_short(key)}` is given twice", f"The first is at {first.line}:{first.column}.")
        return False

    def _merge_sources(self, node: Node, mark: Mark) -> list[Node]:
        sources = node.value if isinstance(node.value, list) else [node]
        if all(isinstance(source.value, dict) for source in sources):
            return sources
        self._problem(mark, "`<<` needs a mapping or a list of mappings")
        return []

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Any:
        tag = _tag(event)
        try:
            return value_of(event.value, tag)
        except UnknownTagError:
            self._problem(mark, f"the tag `{_short(tag)}` is not allowed", "A polyaxonfile holds plain data only.")
        except ValueError:
            self._problem(mark, f"`{_short(event.value)}` is not a number or word that can be read", "Quote text.")
        return None

    def _syntax_problem(self, error: yaml.YAMLError) -> None:
        mark, message = Mark(1, 1), " ".join(str(error).split())
        if isinstance(error, yaml.MarkedYAMLError):
            place = error.problem_mark or error.context_mark
            mark = Mark(place.line + 1, place.column + 1) if place else mark
            message = " ".join(text for text in (error.context, error.problem) if text)
        hint = ""
        if "'\\t'" in message or _is_tab(self.text, mark):
            hint = "Indent with blanks, not with tabs."
        elif _line(self.text, mark.line).count("{{"):
            hint = 'Quote a value that begins with braces: "{{ x }}".'
        self._problem(mark, f"not valid YAML: {message}", hint)


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NODE_EVENTS = (yaml.NodeEvent,)
_CONTAINER_TAGS = {
    yaml.SequenceStartEvent: (None, "!", TAG + "seq"),
    yaml.MappingStartEvent: (None, "!", TAG + "map"),
}


def _tag(event: yaml.ScalarEvent) -> str:
    return tag_of(event.value, event.tag, event.implicit)


def _grow(node: Node, child: Node) -> None:
    node.size += child.size
    node.depth = max(node.depth, child.depth + 1)


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _end_of(text: str) -> Mark:
    return Mark(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _is_tab(text: str, mark: Mark) -> bool:
    line = _line(text, mark.line)
    return line[mark.column - 1 : mark.column] == "\t" or line.lstrip(" ").startswith("\t")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else "a single value"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"  # noqa: PLR2004 - a readable width
