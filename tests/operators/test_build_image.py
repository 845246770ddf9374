"""From a file to the image of its trials: what is built, and by which pod."""

from __future__ import annotations

import pytest

from airflow_hptuning import load_spec
from airflow_hptuning.operators.build_image import image_build

SWEEP = """
version: 1
kind: group
hptuning: {matrix: {a: {values: [1, 2]}}}
run: {cmd: echo}
build:
  image: python:3.12
  build_steps: [make]
  env_vars: [[MODE, fast]]
  lang_env: C.UTF-8
  environment: {resources: {memory: {limits: 512}}, node_selector: {disk: ssd}, tolerations: [{operator: Exists}]}
environment: {resources: {gpu: {limits: 1}}}
airflow:
  dag_id: Digits_Nightly
  kubernetes: {namespace: tuning, labels: {team: vision}, security_context: {runAsUser: 1000}, env: {A: b}}
  build: {mode: image, registry: "registry:5000/team"}
"""


def test_an_image_is_built_as_the_file_asks() -> None:
    """The build's own environment holds for the builder, not that of the trials; the pods are of the same team."""
    build = image_build(load_spec(SWEEP))
    assert build is not None
    assert build.repository == "registry:5000/team/digits-nightly"
    assert (build.base, build.steps, build.env) == ("python:3.12", ("make",), {"LANG": "C.UTF-8", "MODE": "fast"})
    pod = build.settings
    assert pod.resources == {"limits": {"memory": "512Mi"}}
    assert (pod.node_selector, pod.tolerations) == ({"disk": "ssd"}, ({"operator": "Exists"},))
    assert (pod.namespace, pod.labels, pod.security_context, pod.env) == ("tuning", {"team": "vision"}, None, {})


@pytest.mark.parametrize("change", [("mode: image", "mode: inline"), ("[make]", "[]"), ("image: python:3.12", "")])
def test_nothing_to_build(change: tuple[str, str]) -> None:
    """No image without steps, without one to start from, or where the steps run in line."""
    assert image_build(load_spec(SWEEP.replace(*change))) is None
