"""Whatever the bytes: a spec, or a PolyaxonfileError; in bounded work."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.errors import PolyaxonfileError
from airflow_hptuning.polyaxonfile.parser import dump, is_polyaxonfile, parse_text
from tests.strategies import spaces

if TYPE_CHECKING:
    from airflow_hptuning.space.search_space import SearchSpace

HEAD = "version: 1\nkind: group\nrun: {cmd: echo}\n"
ONE = "hptuning: {matrix: {x: {values: [1]}}}"

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
keys = st.sampled_from(
    ["version", "kind", "name", "tags", "logging", "inputs", "params", "declarations", "environment", "build", "run",
     "hptuning", "airflow", "settings", "matrix"]
)  # fmt: skip


def survives(text: str | bytes) -> None:
    """Parse, and accept nothing but a spec or the one error."""
    is_polyaxonfile(text)
    with suppress(PolyaxonfileError):
        parse_text(text)


@given(st.binary(max_size=400) | st.text(max_size=400))
def test_any_bytes(data: bytes | str) -> None:
    """Noise."""
    survives(data)


@given(st.text(alphabet="{}[]:,-&*!|>'\"%@`#\n\t abc123.~?", max_size=200))
def test_yaml_looking_text(text: str) -> None:
    """What YAML's syntax is made of."""
    survives(HEAD + text)


@given(st.dictionaries(keys, plain, max_size=6))
def test_any_document_with_known_keys(document: dict[str, object]) -> None:
    """Sections of the wrong shape, everywhere."""
    survives(json.dumps({"version": 1, "kind": "group"} | document))


@given(st.dictionaries(st.text(max_size=8), plain, max_size=5), plain)
def test_any_search(matrix: dict[str, object], rest: object) -> None:
    """Matrices and algorithms of any shape."""
    survives(
        json.dumps({"version": 1, "kind": "group", "run": {"cmd": "x"}, "hptuning": {"matrix": matrix, "bo": rest}})
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefghi", "bcdefghij", strict=True)),
        "[" * 100_000,
        "x: " + "{y: " * 5_000,
        "- " * 50_000,
        HEAD + "hptuning: {matrix: {x: {range: [0, 1e300, 1e-300]}}}",
        HEAD + "hptuning: {matrix: {x: {linspace: [0, 1, 1000000000000]}}}",
        HEAD + "params: {a: '{{ b }}', b: '{{ a }}'}\nhptuning: {matrix: {x: {values: [1]}}}",
        HEAD.replace("echo", "'{% for i in range(99999999) %}x{% endfor %}'") + ONE,
        HEAD.replace("echo", "\"{{ 'x' * 999999999 }}\"") + ONE,
        b"\xff\xfe\x00\x01",
        b"\x00" * 1000,
        "x" * 11_000_000,
        "\n".join(f"k{n}: {n}" for n in range(300_000)),
    ],
    ids=["bomb", "brackets", "braces", "dashes", "range", "linspace", "circle", "loop", "product", "bytes", "nul",
         "long", "keys"],
)  # fmt: skip
def test_hostile_files(text: str | bytes) -> None:
    """Bombs, deep nesting and large files end quickly; the test's own time-out would tell."""
    survives(text)


@given(spaces())
def test_dump_and_parse_give_the_same_spec(space: SearchSpace) -> None:
    """Any space survives being written and read."""
    matrix = {parameter.name: parameter.definition() for parameter in space.parameters}
    document = {
        "version": 1,
        "kind": "group",
        "run": {"cmd": "echo"},
        "hptuning": {"concurrency": 3, "random_search": {"n_experiments": 4}, "matrix": matrix},
    }
    spec = parse_text(json.dumps(document))
    assert parse_text(dump(spec)) == spec
    assert spec.space == space
