"""Manifests of pods: what a sweep asks for, what the contract demands, and the template on top."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_hptuning.runners.pods import (
    PodSettings,
    label_value,
    overlay,
    pod_name,
    quantities,
    run_selector,
    task_selector,
    trial_labels,
    trial_pod,
)
from airflow_hptuning.trials import Suggestion, TrialCommand

LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PLACE = {"sweep": "mnist", "run_id": "manual__2026-11-25T15:45:57+00:00", "task_id": "trial", "map_index": 3}


def pod(settings: PodSettings | None = None, *, env: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """Make a manifest."""
    command = TrialCommand("train --lr=0.1", {"POLYAXON_PARAMS": '{"lr": 0.1}'} | (env or {}), "/outputs")
    return trial_pod(
        command, settings or PodSettings("image:1"), name="pod-1", labels={"hptuning/trial": "3"}, grace=5, **options
    )


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the trial's container."""
    (found,) = [c for c in manifest["spec"]["containers"] if c["name"] == "base"]
    assert isinstance(found, dict)
    return found


def env(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of the trial's container, as Kubernetes sets them."""
    return {v["name"]: v.get("valueFrom") or re.sub(r"\$\$", "$", v["value"]) for v in container(manifest)["env"]}


def test_a_plain_pod() -> None:
    """Image, name, labels, end; and nothing that the cluster decides better."""
    manifest = pod()
    assert manifest["metadata"] == {"name": "pod-1", "labels": {"hptuning/trial": "3"}}
    assert set(manifest["spec"]) == {"restartPolicy", "terminationGracePeriodSeconds", "containers"}
    assert manifest["spec"]["restartPolicy"] == "Never"
    assert container(manifest)["image"] == "image:1"
    assert env(manifest)["HPTUNING_TERMINATION_LOG"] == container(manifest)["terminationMessagePath"]


def test_polyaxons_amounts_become_quantities() -> None:
    """Memory numbers are MiB, cores are as they are, GPUs are NVIDIA's."""
    amounts: dict[str, dict[str, float | None]] = {
        "cpu": {"requests": 0.5, "limits": 2.0},
        "memory": {"requests": None, "limits": 1500.0},
        "gpu": {"limits": 1.0},
        "tpu": {"requests": 8},
    }
    assert quantities(amounts) == {
        "requests": {"cpu": "0.5", "cloud-tpus.google.com/v2": "8"},
        "limits": {"cpu": "2", "memory": "1500Mi", "nvidia.com/gpu": "1"},
    }
    assert quantities({"memory": {"limits": 1048576.0}}) == {"limits": {"memory": "1048576Mi"}}


def test_no_gpu_is_seen_unless_asked_for() -> None:
    """As Polyaxon did; images made for GPUs otherwise see all of a node's."""
    assert env(pod())["NVIDIA_VISIBLE_DEVICES"] == "none"
    asked = PodSettings("image:1", resources={"limits": {"nvidia.com/gpu": "1"}})
    assert "NVIDIA_VISIBLE_DEVICES" not in env(pod(asked))


def test_what_is_asked_for_reaches_the_pod() -> None:
    """Each setting at its place."""
    settings = PodSettings(
        "image:1",
        resources={"limits": {"cpu": "1"}},
        env={"A": "1", "TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        env_from=[{"secretRef": {"name": "hub"}}],
        labels={"team": "vision"},
        annotations={"note": "nightly: yes"},
        node_selector={"disk": "ssd"},
        affinity={"nodeAffinity": {}},
        tolerations=[{"operator": "Exists"}],
        security_context={"runAsUser": 1000},
        volumes=[{"name": "data", "emptyDir": {}}],
        volume_mounts=[{"name": "data", "mountPath": "/data"}],
        service_account="trainer",
        priority_class="batch",
        image_pull_policy="IfNotPresent",
        image_pull_secrets=["key"],
        max_restarts=2,
    )
    manifest = pod(settings, deadline=90.4)
    spec, base = manifest["spec"], container(manifest)
    assert manifest["metadata"]["labels"] == {"team": "vision", "hptuning/trial": "3"}
    assert manifest["metadata"]["annotations"] == {"note": "nightly: yes"}
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"disk": "ssd"}, [{"operator": "Exists"}])
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("trainer", "batch")
    assert (spec["securityContext"], spec["affinity"]) == ({"runAsUser": 1000}, {"nodeAffinity": {}})
    assert (spec["imagePullSecrets"], spec["volumes"]) == ([{"name": "key"}], [{"name": "data", "emptyDir": {}}])
    assert (spec["restartPolicy"], spec["activeDeadlineSeconds"]) == ("OnFailure", 90)
    assert (base["resources"], base["imagePullPolicy"]) == ({"limits": {"cpu": "1"}}, "IfNotPresent")
    assert (base["envFrom"], base["volumeMounts"]) == (
        [{"secretRef": {"name": "hub"}}],
        [{"name": "data", "mountPath": "/data"}],
    )
    assert env(manifest)["A"] == "1"
    assert env(manifest)["TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_the_file_cannot_lie_to_a_trial() -> None:
    """``airflow.kubernetes.env`` wins over the build's variables, but not over the contract's."""
    settings = PodSettings("image:1", env={"A": "file", "POLYAXON_PARAMS": "{}"})
    found = env(pod(settings, env={"A": "build", "HPTUNING_TRIAL_ID": "3"}))
    assert found["A"] == "file"
    assert found["POLYAXON_PARAMS"] == '{"lr": 0.1}'
    assert found["HPTUNING_TRIAL_ID"] == "3"


@pytest.mark.parametrize("text", ["$(HOME)", "$$", "$HOME $$(X)", "it costs $5"])
def test_kubernetes_replaces_nothing(text: str) -> None:
    """Dollars of a parameter or a command arrive as they are: Kubernetes reads $$ as one."""
    command = TrialCommand(f"echo '{text}'", {"POLYAXON_PARAMS": text}, "")
    manifest = trial_pod(command, PodSettings("i:1"), name="n", labels={}, grace=1)
    assert env(manifest)["POLYAXON_PARAMS"] == text
    words = container(manifest)["command"]
    assert words[4] == f"echo '{text}'".replace("$", "$$")
    assert not any(re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word) for word in words)


def test_the_template_has_the_last_word() -> None:
    """Lists of named things are merged, other lists and values are replaced; name and labels stay ours."""
    template = {
        "metadata": {"name": "mine", "labels": {"a": "b", "hptuning/trial": "9"}},
        "spec": {
            "hostNetwork": True,
            "containers": [
                {"name": "base", "env": [{"name": "POLYAXON_PARAMS", "value": "x"}, {"name": "NEW", "value": "1"}]},
                {"name": "sidecar", "image": "proxy:1"},
            ],
        },
    }
    manifest = pod(PodSettings("image:1", pod_template=template))
    assert manifest["metadata"] == {"name": "pod-1", "labels": {"a": "b", "hptuning/trial": "3"}}
    assert manifest["spec"]["hostNetwork"] is True
    assert [c["name"] for c in manifest["spec"]["containers"]] == ["base", "sidecar"]
    assert container(manifest)["image"] == "image:1"
    assert env(manifest)["POLYAXON_PARAMS"] == "x"
    assert env(manifest)["NEW"] == "1"


def test_mounts_are_known_by_their_paths() -> None:
    """One volume can be mounted twice."""
    base = {"volumeMounts": [{"name": "v", "mountPath": "/a"}]}
    over = {"volumeMounts": [{"name": "v", "mountPath": "/b"}, {"name": "w", "mountPath": "/a"}]}
    assert overlay(base, over) == {"volumeMounts": [{"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]}


def test_labels_find_run_and_task() -> None:
    """The selectors are made of labels that each pod carries."""
    labels = trial_labels(Suggestion(7, {"lr": 0.1}, resource=9, bracket=2, rung=1), attempt=2, **PLACE)
    assert labels["hptuning/trial"] == "7"
    assert (labels["hptuning/bracket"], labels["hptuning/rung"], labels["hptuning/try"]) == ("2", "1", "2")
    assert labels["hptuning/config"] == Suggestion(0, {"lr": 0.1}).config_id
    for selector in (run_selector(PLACE["sweep"], PLACE["run_id"]), task_selector(**PLACE)):
        assert {tuple(part.split("=")) for part in selector.split(",")} <= set(labels.items())


def test_a_name_for_each_try() -> None:
    """The same try has the same name, another one another."""
    first = pod_name(*PLACE.values(), 1, trial=3)
    assert first == pod_name(*PLACE.values(), 1, trial=3)
    assert first != pod_name(*PLACE.values(), 2, trial=3)


@given(st.text(max_size=300))
def test_labels_are_valid(text: str) -> None:
    """Whatever the run or the sweep is called, Kubernetes takes the label."""
    assert LABEL.fullmatch(label_value(text))


@given(st.text(max_size=80), st.text(max_size=80))
def test_labels_are_unique(one: str, other: str) -> None:
    """Two runs have two labels."""
    assert (label_value(one) == label_value(other)) == (one == other)


@given(st.text(max_size=100), st.integers(0, 10**6))
def test_names_are_valid(sweep: str, trial: int) -> None:
    """Whatever the sweep is called, Kubernetes takes the pod's name."""
    assert NAME.fullmatch(pod_name(sweep, "run", "trial", 0, 1, trial=trial))
