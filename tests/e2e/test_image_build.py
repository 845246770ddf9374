"""Images of sweeps, built and pulled for real: buildah in a pod, a registry, and trials in what came out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.live_airflow import LiveAirflow, free_port
from tests.live_cluster import NAMESPACE, Cluster, wait_until_gone
from tests.live_registry import BASE, BUILDER, LiveRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FIXTURE = Path(os.environ.get("K8S_FIXTURE") or Path(__file__).resolve().parents[3] / "shared" / "k8s")
"""Scripts and parts of the Kubernetes that ``.ci/run`` starts: beside the clone, unless told otherwise."""

SWEEP = """
version: 1
kind: group
hptuning: {{concurrency: 2, matrix: {{x: {{values: [1, 2]}}}}}}
build:
  image: "{host}/{base}"
  env_vars: [[GREETING, "it's $HOME"]]
  build_steps:
    - |
      # The steps of one image, in bash.
      words=(it was built); cat > /built <<EOF
      ${{words[*]}} $GREETING
      EOF
    - {step}
  environment: {{labels: {{part: build}}, resources: {{memory: {{limits: 1000}}}}}}
run: {{cmd: "cat /built && echo loss={{{{ x }}}}.$(wc -l < /built)"}}
airflow:
  build: {{mode: image, registry: "{host}/sweeps", insecure: true, builder_image: "{builder}"}}
  kubernetes: {{namespace: {namespace}, startup_timeout: 60s}}
  metrics: {{objective: {{name: loss, optimization: minimize}}}}
"""

INLINE = """
version: 1
kind: group
hptuning: {{concurrency: 2, matrix: {{x: {{range: "0:20:1"}}}}}}
build:
  image: "python:3.11"
  build_steps: ["echo prepared", "echo what went wrong; exit 3"]
run: {{cmd: "echo loss={{{{ x }}}}"}}
airflow:
  kubernetes: {{namespace: {namespace}, startup_timeout: 60s}}
  metrics: {{objective: {{name: loss, optimization: minimize}}}}
"""


@pytest.fixture(scope="module")
def registry(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A registry that builder pods push to and the fixture's node pulls from."""
    if not (FIXTURE / "mkimage.py").exists():
        pytest.skip("the fixture's tools to make images are not here")
    folder: Path = tmp_path_factory.mktemp("registry")
    state = Path(os.environ.get("K8S_DIR") or cluster.kubeconfig.parent)
    cluster.connect()
    with LiveRegistry(folder, FIXTURE, state, free_port()) as running:
        yield running
        running.forget(running.host)
        running.forget(BUILDER)


def states(live: LiveAirflow, dag_id: str, run_id: str) -> dict[str, set[str]]:
    """Return the states of the instances of each task."""
    found: dict[str, set[str]] = {}
    for instance in live.task_instances(dag_id, run_id):
        found.setdefault(instance["task_id"], set()).add(instance["state"])
    return found


def sweep(registry: LiveRegistry, step: str) -> str:
    """Return the text of a sweep with an image of its own."""
    return SWEEP.format(host=registry.host, base=BASE, step=step, builder=BUILDER, namespace=NAMESPACE)


def test_trials_run_in_an_image_that_is_built_once(
    live_pods: LiveAirflow, cluster: Cluster, registry: LiveRegistry
) -> None:
    """The builder pod pushes the image, trials are started from it, and a second run finds it."""
    live_pods.add("imaged.yaml", sweep(registry, "python3 --version"))
    with cluster.record("imaged") as history:
        run_id, state = live_pods.run("imaged")
    assert state == "success"
    (tag,) = registry.tags("sweeps/imaged")
    image = f"{registry.host}/sweeps/imaged:{tag}"
    assert live_pods.xcom("imaged", run_id, "build") == image
    assert [r["metrics"] for r in live_pods.records("imaged", run_id)] == [{"loss": 1.1}, {"loss": 2.1}]
    assert "it was built it's $HOME" in live_pods.task_log("imaged", run_id, "trial", 0)
    builders = [pod for pod in history.pods.values() if "part" in pod.metadata.labels]
    assert [pod.spec.containers[0].resources.limits for pod in builders] == [{"memory": "1000Mi"}]
    assert {pod.spec.containers[0].image for pod in history.pods.values()} == {BUILDER, image}
    wait_until_gone(cluster, "imaged")

    with cluster.record("imaged") as history:
        run_id, state = live_pods.run("imaged")
    assert state == "success"
    assert {pod.spec.containers[0].image for pod in history.pods.values()} == {image}
    assert "has" in live_pods.task_log("imaged", run_id, "build")


def test_a_failing_build_starts_no_trial(live_pods: LiveAirflow, cluster: Cluster, registry: LiveRegistry) -> None:
    """The build is not tried again, the rest is skipped, and the last lines say why."""
    live_pods.add("unbuilt.yaml", sweep(registry, '"echo what went wrong; exit 3"'))
    with cluster.record("unbuilt") as history:
        run_id, state = live_pods.run("unbuilt")
    assert state == "failed"
    assert len(history.pods) == 1
    assert states(live_pods, "unbuilt", run_id) == {
        "build": {"failed"},
        "suggest": {"skipped"},
        "trial": {"skipped"},
        "collect": {"failed"},
        "reap": {"success"},
    }
    for task_id in ("build", "collect"):
        log = live_pods.task_log("unbuilt", run_id, task_id)
        assert "The image could not be built (exit code 3)" in log
        assert "what went wrong" in log
    assert registry.tags("sweeps/unbuilt") == []
    wait_until_gone(cluster, "unbuilt")

    # Cleared, it starts anew, whatever the time before has left.
    live_pods.clear("unbuilt", run_id, ["build"])
    assert live_pods.wait_for_run("unbuilt", run_id) == "failed"
    assert "what went wrong" in live_pods.task_log("unbuilt", run_id, "build", attempt=2)
    assert states(live_pods, "unbuilt", run_id)["build"] == {"failed"}


def test_a_failing_step_in_the_container_ends_the_sweep(live_pods: LiveAirflow, cluster: Cluster) -> None:
    """In line, the first trial whose step fails speaks for all: not each of 20 fails by itself."""
    live_pods.add("inline.yaml", INLINE.format(namespace=NAMESPACE))
    with cluster.record("inline") as history:
        run_id, state = live_pods.run("inline")
    assert state == "failed"
    assert len(history.pods) < 10
    summary: dict[str, Any] = live_pods.xcom("inline", run_id, "collect")
    assert summary["stop"]["cause"] == "build"
    assert "build step 2 of 2 failed (exit code 3)" in summary["stop"]["text"]
    assert "what went wrong" in live_pods.task_log("inline", run_id, "collect")
    assert "skipped" in states(live_pods, "inline", run_id)["trial"]
    wait_until_gone(cluster, "inline")
