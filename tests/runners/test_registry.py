"""Whether a registry has an image: a small registry on 127.0.0.1 answers as real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_hptuning.runners.registry import Reference, has_image
from tests.fake_registry import Registry, running_registry
from tests.live_airflow import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A running registry."""
    with running_registry() as server:
        yield server


@pytest.mark.parametrize(("tag", "expected"), [("1", True), ("2", False)])
@pytest.mark.parametrize("login", ["open", "basic", "token"])
def test_has_image(registry: Registry, login: str, tag: str, *, expected: bool) -> None:
    """Open registries, those with passwords, and those with tokens."""
    registry.login = login
    assert has_image(f"{registry.host}/team/mnist:{tag}", login=("ada", "pass"), insecure=True) is expected


def test_a_password_is_only_given_to_whom_asks(registry: Registry) -> None:
    """The first question is without."""
    registry.login = "basic"
    assert has_image(f"{registry.host}/team/mnist:1", login=("ada", "pass"), insecure=True)
    assert [bool(asked) for asked in registry.asked] == [False, True]


def test_not_known(registry: Registry) -> None:
    """No login, a login that nobody can make sense of, no plain HTTP, nobody there."""
    registry.login = "basic"
    assert has_image(f"{registry.host}/team/mnist:1", insecure=True) is None
    registry.login = "broken"
    assert has_image(f"{registry.host}/team/mnist:1", insecure=True) is None
    registry.login = "open"
    assert has_image(f"{registry.host}/team/mnist:1") is None
    assert has_image(f"127.0.0.1:{free_port()}/team/mnist:1", insecure=True) is None


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag"),
    [
        ("python:3.12", "docker.io", "python", "3.12"),
        ("team/mnist:1", "docker.io", "team/mnist", "1"),
        ("localhost/mnist:1", "localhost", "mnist", "1"),
        ("registry:5000/a/b/c:1-x_y.z", "registry:5000", "a/b/c", "1-x_y.z"),
        ("registry.example.com/mnist:1", "registry.example.com", "mnist", "1"),
    ],
)
def test_references(text: str, host: str, repository: str, tag: str) -> None:
    """A first part with a dot or a port is a host."""
    assert Reference.parse(text) == Reference(host, repository, tag)


@pytest.mark.parametrize("text", ["python", "registry:5000/mnist", "", "a b:1", "x@sha256:00:1"])
def test_no_reference(text: str) -> None:
    """A tag is needed."""
    with pytest.raises(ValueError, match="not an image with a tag"):
        Reference.parse(text)
