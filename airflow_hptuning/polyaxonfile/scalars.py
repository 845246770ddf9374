"""Which words of a polyaxonfile are numbers, truth values or nothing, and what they are worth."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import BaseResolver

MAX_INT_BITS = 1024
"""Python refuses to print much longer integers, and no hyperparameter has 300 digits."""

_FLOAT = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INT = re.compile(r"^[-+]?(?:0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")
_BOOL = re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
TAG = "tag:yaml.org,2002:"
TEXT = TAG + "str"
MERGE = TAG + "merge"


class _Resolver(BaseResolver):
    """Which plain scalars are not text."""


_Resolver.add_implicit_resolver(TAG + "bool", _BOOL, list("yYnNtTfFoO"))
_Resolver.add_implicit_resolver(TAG + "float", _FLOAT, list("-+0123456789."))
_Resolver.add_implicit_resolver(TAG + "int", _INT, list("-+0123456789"))
_Resolver.add_implicit_resolver(TAG + "null", _NULL, ["~", "n", "N", ""])
_Resolver.add_implicit_resolver(MERGE, re.compile(r"^<<$"), ["<"])


class UnknownTagError(ValueError):
    """A tag that stands for no plain value."""


def _integer(constructor: SafeConstructor, node: yaml.ScalarNode) -> int:
    value: int = constructor.construct_yaml_int(node)
    if value.bit_length() > MAX_INT_BITS:
        raise ValueError(f"an integer of more than {MAX_INT_BITS} bits")
    return value


_CONSTRUCTORS = {
    TAG + "null": SafeConstructor.construct_yaml_null,
    TAG + "bool": SafeConstructor.construct_yaml_bool,
    TAG + "int": _integer,
    TAG + "float": SafeConstructor.construct_yaml_float,
}
_RESOLVER = _Resolver()
_CONSTRUCTOR = SafeConstructor()


def tag_of(text: str, tag: str | None, implicit: tuple[bool, bool]) -> str:
    """Return the tag of a scalar.

    Args:
        text: The scalar.
        tag: The tag that is written, if one is.
        implicit: Whether a tag may be left out for the plain and the quoted form, as the parser's events say.
    """
    if tag == "!":
        return TEXT
    found: str = tag or _RESOLVER.resolve(yaml.ScalarNode, text, implicit)  # type: ignore[no-untyped-call]
    return found


def value_of(text: str, tag: str) -> Any:
    """Return what a scalar is worth.

    Raises:
        UnknownTagError: The tag is none of a plain value.
        ValueError: The text is none that the tag allows, or an integer that nothing could print.
    """
    if tag in {TEXT, MERGE}:
        return text
    construct = _CONSTRUCTORS.get(tag)
    if construct is None:
        raise UnknownTagError(tag)
    try:
        return construct(_CONSTRUCTOR, yaml.ScalarNode(tag, text))
    except (KeyError, IndexError) as error:
        raise ValueError(text) from error
