"""Images of sweeps: Dockerfile, tag and builder pod as plain data; the build itself is in ``tests/e2e``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from airflow_hptuning.errors import BuildError
from airflow_hptuning.runners.image_build import (
    AUTH,
    BUILDAH,
    ImageBuild,
    build_labels,
    build_pod,
    build_variables,
)
from airflow_hptuning.runners.pods import Place, PodSettings, run_selector

if TYPE_CHECKING:
    from pathlib import Path

BUILD = ImageBuild("registry:5000/team/mnist", "python:3.12", ("pip install x",), {}, PodSettings("builder:1"))


def pod(build: ImageBuild) -> dict[str, Any]:
    """Make a manifest."""
    return build_pod(build, name="build-1", labels={"hptuning/sweep": "mnist"}, grace=5, deadline=60)


def env(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the builder's container."""
    return {variable["name"]: variable["value"] for variable in manifest["spec"]["containers"][0]["env"]}


def test_the_tag_is_a_hash_of_what_goes_in() -> None:
    """The same image, steps and variables have one name; any other has another; the builder does not count."""
    image = BUILD.image
    assert image.startswith("registry:5000/team/mnist:")
    assert evolve(BUILD, command="make", settings=PodSettings("builder:2"), insecure=True).image == image
    others = {
        evolve(BUILD, base="python:3.13").image,
        evolve(BUILD, steps=("pip install y",)).image,
        evolve(BUILD, steps=("pip install x", "true")).image,
        evolve(BUILD, env={"A": "1"}).image,
    }
    assert len(others | {image}) == 5


def test_dockerfile() -> None:
    """One instruction a line, whatever the steps and values hold."""
    build = evolve(BUILD, steps=("echo one\necho two # \\", "cat <<EOF\n$HOME\nEOF"), env={"A": "it's $HOME"})
    first, variable, *steps = build.dockerfile.split("\n")
    assert first == "FROM python:3.12"
    assert variable == "ENV A='it'\\''s $HOME'"
    assert shlex.split(variable.removeprefix("ENV ")) == ["A=it's $HOME"]
    assert [json.loads(step.removeprefix("RUN "))[-1] for step in steps] == list(build.steps)


def test_steps_run_in_the_same_shell_as_inline(tmp_path: Path) -> None:
    """Bash where there is one."""
    (step,) = evolve(BUILD, steps=("a=(x y); echo ${a[1]} > out",)).dockerfile.split("\n")[1:]
    subprocess.run(json.loads(step.removeprefix("RUN ")), cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_text() == "y\n"


def test_a_variable_with_a_line_break_cannot_be_built() -> None:
    """A Dockerfile has no way to write it: better refused than another value."""
    with pytest.raises(BuildError, match="variable A holds a line break"):
        _ = evolve(BUILD, env={"A": "1\n2"}).image


def test_variables_of_a_build() -> None:
    """A variable of the file wins over its ``lang_env``."""
    assert build_variables([("A", "1")], "C.UTF-8") == {"LANG": "C.UTF-8", "A": "1"}
    assert build_variables([("LANG", "C")], "C.UTF-8") == {"LANG": "C"}


def test_builder_pod() -> None:
    """It knows the image's name, has the labels by which it is reaped, and ends by itself."""
    manifest = pod(evolve(BUILD, settings=PodSettings("builder:1", resources={"limits": {"memory": "1Gi"}})))
    assert manifest["metadata"] == {"name": "build-1", "labels": {"hptuning/sweep": "mnist"}}
    assert (manifest["spec"]["restartPolicy"], manifest["spec"]["activeDeadlineSeconds"]) == ("Never", 60)
    (container,) = manifest["spec"]["containers"]
    assert (container["image"], container["resources"]) == ("builder:1", {"limits": {"memory": "1Gi"}})
    assert env(manifest) == {"HPTUNING_IMAGE": BUILD.image, "HPTUNING_TLS_VERIFY": "true"}
    assert env(pod(evolve(BUILD, insecure=True)))["HPTUNING_TLS_VERIFY"] == "false"


def test_passwords_are_mounted_and_the_template_is_on_top() -> None:
    """The secret never passes through Airflow; a template may make the builder privileged, say."""
    over = {"spec": {"containers": [{"name": "base", "securityContext": {"privileged": True}}]}}
    build = evolve(BUILD, push_secret="key", settings=PodSettings("b", pod_template=over))  # noqa: S106 - a name
    manifest = pod(build)
    (container,) = manifest["spec"]["containers"]
    assert container["securityContext"] == {"privileged": True}
    assert manifest["spec"]["volumes"][0]["secret"]["secretName"] == "key"
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [AUTH]
    assert env(manifest)["REGISTRY_AUTH_FILE"] == f"{AUTH}/config.json"


def test_labels_are_those_that_pods_are_found_by() -> None:
    """A builder pod belongs to its run and its task."""
    place = Place("mnist", "manual__1", "build", -1)
    labels = build_labels(place, attempt=2, life=2)
    for selector in (run_selector("mnist", "manual__1"), place.selector):
        assert set(selector.split(",")) <= {f"{key}={value}" for key, value in labels.items()}


@pytest.mark.parametrize("command", [BUILDAH, 'echo "$HPTUNING_IMAGE"; cat "$HPTUNING_DOCKERFILE" > copied; exit 4'])
def test_the_script_of_the_builder(tmp_path: Path, command: str) -> None:
    """Run by a shell, with a buildah that only says what it was asked; and the script of a file in its place."""
    buildah = tmp_path / "buildah"
    buildah.write_text(
        '#!/bin/sh\necho "$@" | tail -n 1\n'
        'while [ $# -gt 0 ]; do if [ "$1" = --file ]; then cat "$2" > copied; fi; shift; done\n'
    )
    buildah.chmod(0o755)
    build = evolve(BUILD, command=command, steps=("echo '$HOME' \\\\",))
    manifest = pod(build)
    words = [word.replace("$$", "$") for word in manifest["spec"]["containers"][0]["command"]]
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        words, env=env(manifest) | path, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert (tmp_path / "copied").read_text() == build.dockerfile + "\n"
    if command == BUILDAH:
        built, pushed = done.stdout.splitlines()
        assert built.startswith(f"--storage-driver vfs build --tls-verify=true --layers=false --tag {build.image}")
        assert pushed == f"--storage-driver vfs push --tls-verify=true {build.image}"
        assert done.returncode == 0
    else:
        assert (done.stdout, done.returncode) == (build.image + "\n", 4)
