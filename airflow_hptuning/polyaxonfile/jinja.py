"""Jinja2 as the templates of a polyaxonfile may use it: expressions, filters, `if` and `for`, all within limits.

The sandbox keeps templates from reaching Python's internals. The limits here keep them from taking a task down by
mistake or by malice: long loops, huge products and widths are refused, and so are the tags that could multiply text
without a loop (`set`, macros, blocks, includes).
"""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import jinja2
from attrs import frozen
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from airflow_hptuning.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_TEXT = 100_000
"""Characters of a template and of what it renders to; Linux takes no longer argument than 131,072 bytes."""
MAX_ITEMS = 1_000
"""Rounds of one loop."""
_MAX_BITS = 4_096
_LOOP_DEPTH = 2

_FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.Block: "block",
    nodes.Extends: "extends",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
}
_UNSAFE_METHODS = frozenset(
    {"format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs", "replace", "join", "translate"}
)
_UNSAFE_FILTERS = ("center", "indent", "wordwrap", "batch", "slice", "xmlattr", "tojson", "pprint")


class _Environment(SandboxedEnvironment):
    """The sandbox with limits."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a product, power or format unless its result would be huge."""
        check = {"*": _check_product, "**": _check_power, "%": _check_format}[operator]
        check(left, right)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute, but no method of text that makes longer text."""
        if isinstance(obj, str) and attribute in _UNSAFE_METHODS:
            return self.unsafe_undefined(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item; the attribute syntax in brackets obeys `getattr`."""
        if isinstance(obj, str) and argument in _UNSAFE_METHODS:
            return self.unsafe_undefined(obj, argument)
        return super().getitem(obj, argument)


def _check_product(left: Any, right: Any) -> None:
    for sequence, factor in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(factor, int):
            if len(sequence) * factor > MAX_TEXT:
                raise SecurityError("the product is too long")
            return
    if _bits(left) + _bits(right) > _MAX_BITS:
        raise SecurityError("the product is too large")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(right, int) and _bits(left) * abs(right) > _MAX_BITS:
        raise SecurityError("the power is too large")


def _check_format(left: Any, _: Any) -> None:
    if isinstance(left, str) and re.search(r"%[^a-zA-Z%]*(?:\d{4}|\*)", left):
        raise SecurityError("the format is too wide")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _format(template: Any, *values: Any) -> str:
    text = str(template)
    _check_format(text, values)
    return text % values


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    whole = str(text)
    if len(whole) + (whole.count(old) + 1) * len(new) > MAX_TEXT:
        raise SecurityError("the result is too long")
    return whole.replace(old, new, count)


def _bounded(items: Iterable[Any]) -> list[Any]:
    taken = list(islice(items, MAX_ITEMS + 1))
    if len(taken) > MAX_ITEMS:
        raise SecurityError(f"a loop has more than {MAX_ITEMS} rounds")
    return taken


def _quote(value: Any) -> str:
    return shlex.quote(str(value))


def _json(value: Any) -> str:
    return jinja2.utils.htmlsafe_json_dumps(value)


def _environment() -> _Environment:
    # Without the optimizer nothing is computed while a template is compiled.
    environment = _Environment(undefined=jinja2.StrictUndefined, optimized=False, cache_size=0)
    for name in _UNSAFE_FILTERS:
        del environment.filters[name]
    environment.filters |= {
        "quote": _quote,
        "format": _format,
        "replace": _replace,
        "tojson": _json,
        "_bounded": _bounded,
    }
    span = environment.globals["range"]
    environment.globals.clear()
    environment.globals["range"] = span
    return environment


_ENVIRONMENT = _environment()


@frozen
class Template:
    """A checked template.

    Attributes:
        source: Its text.
        names: The variables it mentions.
        required: Those of them that it cannot do without (`default` and `is defined` can).
        tree: What Jinja2 made of it.
    """

    source: str
    names: frozenset[str]
    required: frozenset[str]
    tree: nodes.Template

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text for some values.

        Raises:
            TemplateError: A variable is missing, or an expression failed or went beyond a limit.
        """
        try:
            chunks = _compiled(self.source).generate(values)
            text = ""
            for chunk in chunks:
                text += chunk
                if len(text) > MAX_TEXT:
                    raise TemplateError(f"the text becomes longer than {MAX_TEXT} characters")
        except jinja2.TemplateError as error:
            raise TemplateError(str(error.message)) from error
        except (*_FAILURES, SyntaxError) as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from error
        return text


_FAILURES = (ArithmeticError, TypeError, ValueError, LookupError, AttributeError, RecursionError, MemoryError)
"""What an expression of a user can raise."""


@lru_cache(maxsize=512)
def _compiled(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(parse(source).tree)


@lru_cache(maxsize=512)
def parse(source: str) -> Template:
    """Check a template.

    Raises:
        TemplateError: It is not valid, or uses what is not supported.
    """
    if len(source) > MAX_TEXT:
        raise TemplateError(f"a template is longer than {MAX_TEXT} characters")
    try:
        tree = _ENVIRONMENT.parse(source)
        _check_tags(tree)
        _limit_loops(tree, 0)
        names = frozenset(meta.find_undeclared_variables(tree) - set(_ENVIRONMENT.globals))
    except jinja2.TemplateError as error:
        raise TemplateError(f"the template is not valid: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("the template is nested too deeply") from error
    return Template(source, names, names - _guarded(tree), tree)


def is_template(text: str) -> bool:
    """Whether a text holds anything for Jinja2."""
    return "{{" in text or "{%" in text or "{#" in text


def _check_tags(tree: nodes.Template) -> None:
    for kind, name in _FORBIDDEN.items():
        if tree.find(kind) is not None:
            raise TemplateError(f"the tag `{{% {name} %}}` is not supported")


def _limit_loops(node: nodes.Node, depth: int) -> None:
    for child in node.iter_child_nodes():
        inner = depth
        if isinstance(child, nodes.For):
            inner += 1
            if child.recursive or inner > _LOOP_DEPTH:
                raise TemplateError(f"loops can be nested {_LOOP_DEPTH} deep, and not recursive")
            child.iter = nodes.Filter(child.iter, "_bounded", [], [], None, None, lineno=child.lineno)
        _limit_loops(child, inner)


def _guarded(tree: nodes.Template) -> set[str]:
    """Return the names that the template itself provides for being undefined."""
    filters = [node.node for node in tree.find_all(nodes.Filter) if node.name in {"default", "d"}]
    tests = [node.node for node in tree.find_all(nodes.Test) if node.name in {"defined", "undefined"}]
    return {node.name for node in (*filters, *tests) if isinstance(node, nodes.Name)}
