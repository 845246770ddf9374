"""The tree of a polyaxonfile: plain values, each of which knows its place in the text."""

from __future__ import annotations

from typing import Any, NamedTuple

from attrs import define, field

Path = tuple[str | int, ...]
"""A place in the document: keys and list indexes."""


class Mark(NamedTuple):
    """A place in the text: line and column from 1."""

    line: int
    column: int


@define(eq=False)
class Node:
    """A value of the document and where it stands.

    Attributes:
        value: A scalar, a list of nodes, or a mapping of nodes by key.
        mark: Where the value begins.
        keys: Where each key of a mapping begins.
        size: Number of values below and including this one, aliases expanded.
        depth: Levels of nesting, 1 for a scalar.
    """

    value: Any
    mark: Mark
    keys: dict[str, Mark] = field(factory=dict)
    size: int = 1
    depth: int = 1

    def get(self, key: str) -> Node | None:
        """Return the value of a key, or None if this is no mapping or has no such key."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def put(self, key: str, node: Node, mark: Mark | None = None) -> None:
        """Set a key of a mapping; its place is that of the node unless given."""
        self.value[key] = node
        self.keys[key] = mark or node.mark

    def plain(self) -> Any:
        """Return the value without places: fresh dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def copy(self) -> Node:
        """Return a node whose mappings can be changed without changing this one."""
        if isinstance(self.value, dict):
            value = {key: node.copy() for key, node in self.value.items()}
            return Node(value, self.mark, dict(self.keys), self.size, self.depth)
        if isinstance(self.value, list):
            return Node([node.copy() for node in self.value], self.mark, size=self.size, depth=self.depth)
        return self


def locate(root: Node, path: Path, *, key: bool = False) -> Mark:
    """Return the place of a path, or of the last part of it that exists.

    Args:
        root: The document.
        path: Keys and indexes.
        key: Whether to return the place of the key rather than that of its value.
    """
    node, mark = root, root.mark
    for index, part in enumerate(path):
        child = _child(node, part)
        if child is None:
            return mark
        is_last = index == len(path) - 1
        wants_key = isinstance(part, str) and (key or not is_last or isinstance(child.value, dict | list))
        node, mark = child, node.keys.get(str(part), child.mark) if wants_key else child.mark
    return mark


def _child(node: Node, part: str | int) -> Node | None:
    if isinstance(node.value, dict):
        return node.value.get(part)
    if isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
        found: Node = node.value[part]
        return found
    return None
