"""Pods: what Kubernetes must know to run a trial, as plain data.

A manifest is made of three things, from the weakest to the strongest: ``environment`` and ``airflow.kubernetes`` of the
file, which ``planning`` translates into ``PodSettings``; what the contract of a trial demands (command, variables,
labels); and ``airflow.kubernetes.pod_template``, which is laid over all of it and so has the last word.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from attrs import Factory, evolve, frozen

from airflow_hptuning.runners.pod_script import container_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_hptuning.trials import Suggestion, TrialCommand

CONTAINER: Final = "base"
"""Name of the container in which the trial runs; the KubernetesPodOperator's."""

LABEL: Final = "hptuning/"
"""Prefix of our labels: sweep, run, task, trial, config, bracket, rung, try, life."""

TERMINATION_LOG: Final = "/dev/termination-log"
"""Where ``tracking`` keeps a summary of the metrics that no log can lose."""

DEFAULT_OUTPUTS: Final = "/tmp/hptuning/outputs"  # noqa: S108 - inside the container of one trial
"""Where a trial writes if ``airflow.outputs.path`` names no volume; it ends with the pod."""

_CONTRACT: Final = ("POLYAXON_", "HPTUNING_")
"""Variables that a trial is told by; the file cannot set them."""

_LONGEST: Final = 63
_NAMED_LISTS: Final = {"volumeMounts": "mountPath", "ports": "containerPort"}
"""Lists of Kubernetes whose items are known by another key than their name."""


@frozen
class Place:
    """The task instance that a pod belongs to.

    Attributes:
        sweep: Name of the sweep (its DAG).
        run_id: The run of the sweep.
        task_id: The mapped task of the trial.
        map_index: Which of its instances.
    """

    sweep: str
    run_id: str
    task_id: str
    map_index: int

    @property
    def selector(self) -> str:
        """The label selector of its pods, whatever the try."""
        return f"{run_selector(self.sweep, self.run_id)},{LABEL}task={label_value(f'{self.task_id}-{self.map_index}')}"


@frozen
class PodSettings:
    """What a sweep asks of Kubernetes, in Kubernetes' own words.

    Attributes:
        image: Container image of the trials.
        namespace: Namespace of the pods; None leaves it to the Airflow connection.
        resources: Kubernetes ``resources`` of the container: requests and limits as quantities.
        env: Environment variables: text, or a mapping for Kubernetes' ``valueFrom``.
        env_from: Kubernetes ``envFrom`` entries.
        labels, annotations, node_selector: As in a pod.
        affinity, tolerations, security_context, volumes, volume_mounts: As in a pod.
        service_account, priority_class, image_pull_policy: Names; None leaves them to the cluster.
        image_pull_secrets: Names of secrets.
        max_restarts: How often Kubernetes restarts a failed container in place.
        pod_template: What is laid over the pod.
        steps: Build steps that run in the container before the command.
    """

    image: str
    namespace: str | None = None
    resources: Mapping[str, Mapping[str, str]] = Factory(dict)
    env: Mapping[str, Any] = Factory(dict)
    env_from: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = Factory(dict)
    annotations: Mapping[str, str] = Factory(dict)
    node_selector: Mapping[str, str] = Factory(dict)
    affinity: Mapping[str, Any] | None = None
    tolerations: Sequence[Mapping[str, Any]] = ()
    security_context: Mapping[str, Any] | None = None
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    service_account: str | None = None
    priority_class: str | None = None
    image_pull_policy: str | None = None
    image_pull_secrets: Sequence[str] = ()
    max_restarts: int = 0
    pod_template: Mapping[str, Any] = Factory(dict)
    steps: Sequence[str] = ()

    def with_image(self, image: str) -> PodSettings:
        """Return these settings for an image in which the build steps have been run."""
        return evolve(self, image=image, steps=())

    @property
    def has_gpu(self) -> bool:
        """Whether the trials ask for a GPU."""
        return any(name.endswith("/gpu") for kinds in self.resources.values() for name in kinds)


def quantities(amounts: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, str]]:
    """Return Polyaxon's amounts as Kubernetes' ``resources``.

    Args:
        amounts: ``cpu`` (cores), ``memory`` (MiB), ``gpu`` and ``tpu`` (numbers), each with ``requests`` and
            ``limits``.
    """
    resources: dict[str, dict[str, str]] = {}
    for kind, bounds in amounts.items():
        for bound, amount in bounds.items():
            if amount is not None:
                resources.setdefault(bound, {})[_RESOURCES[kind]] = _number(amount) + ("Mi" if kind == "memory" else "")
    return resources


_RESOURCES: Final = {
    "cpu": "cpu",
    "memory": "memory",
    "gpu": "nvidia.com/gpu",
    "tpu": "cloud-tpus.google.com/v2",
}


def trial_pod(
    command: TrialCommand,
    settings: PodSettings,
    *,
    name: str,
    labels: Mapping[str, str],
    grace: float,
    resume: bool = False,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Return the manifest of a trial's pod.

    Args:
        command: What to run.
        settings: What the sweep asks of Kubernetes.
        name: Name of the pod.
        labels: Our labels (``trial_labels``).
        grace: Seconds between SIGTERM and SIGKILL.
        resume: Whether a checkpoint is expected in the outputs directory.
        deadline: Seconds after which Kubernetes itself ends the pod; a net below our own watch.
    """
    words = container_command(command.command, steps=settings.steps, resume=resume)
    return pod_manifest(
        words, _environment(command, settings), settings, name=name, labels=labels, grace=grace, deadline=deadline
    )


def pod_manifest(
    words: Sequence[str],
    variables: Mapping[str, Any],
    settings: PodSettings,
    *,
    name: str,
    labels: Mapping[str, str],
    grace: float,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Return the manifest of a pod that runs one command.

    Args:
        words: The command and its arguments.
        variables: Its environment; those of ``settings`` are not added.
        settings: What the sweep asks of Kubernetes.
        name: Name of the pod.
        labels: Our labels.
        grace: Seconds between SIGTERM and SIGKILL.
        deadline: Seconds after which Kubernetes itself ends the pod.
    """
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [_literal(word) for word in words],
        "env": [_variable(key, value) for key, value in variables.items()],
        "envFrom": [dict(entry) for entry in settings.env_from],
        "resources": {bound: dict(kinds) for bound, kinds in settings.resources.items()},
        "volumeMounts": [dict(mount) for mount in settings.volume_mounts],
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
    }
    spec = {
        "restartPolicy": "OnFailure" if settings.max_restarts else "Never",
        "terminationGracePeriodSeconds": max(1, round(grace)),
        "activeDeadlineSeconds": None if deadline is None else max(1, round(deadline)),
        "nodeSelector": dict(settings.node_selector),
        "affinity": settings.affinity,
        "tolerations": [dict(entry) for entry in settings.tolerations],
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
        "priorityClassName": settings.priority_class,
        "securityContext": settings.security_context,
        "volumes": [dict(volume) for volume in settings.volumes],
        "containers": [_without_empty(container)],
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _without_empty(
            {"labels": {k: label_value(v) for k, v in settings.labels.items()}, "annotations": settings.annotations}
        ),
        "spec": _without_empty(spec),
    }
    pod: dict[str, Any] = overlay(manifest, settings.pod_template)
    # By these we find the pod again; nobody may change them.
    pod["metadata"]["name"] = name
    pod["metadata"]["labels"] = pod["metadata"].get("labels", {}) | dict(labels)
    return pod


def trial_labels(place: Place, suggestion: Suggestion, *, attempt: int, life: int = 0) -> dict[str, str]:
    """Return the labels of a trial's pod.

    Args:
        place: The trial's task instance.
        suggestion: What is tried.
        attempt: Number of the try, from 1.
        life: What changes when somebody clears the task, but not when it is retried.
    """
    values = {
        "sweep": place.sweep,
        "run": place.run_id,
        "task": f"{place.task_id}-{place.map_index}",
        "trial": suggestion.trial,
        "config": suggestion.config_id,
        "bracket": suggestion.bracket,
        "rung": suggestion.rung,
        "try": attempt,
        "life": life,
    }
    return {LABEL + key: label_value(value) for key, value in values.items() if value is not None}


def run_selector(sweep: str, run_id: str) -> str:
    """Return the label selector of all pods of a run."""
    return f"{LABEL}sweep={label_value(sweep)},{LABEL}run={label_value(run_id)}"


def pod_name(place: Place, *, trial: int | None, attempt: int) -> str:
    """Return the name of a trial's pod, or a build's: the same for the same try, so that it cannot be started twice."""
    digest = hashlib.sha256(repr((place, attempt)).encode()).hexdigest()[:10]
    slug = re.sub(r"[^a-z0-9]+", "-", place.sweep.lower()).strip("-")[:30].strip("-") or "sweep"
    return f"{slug}-{'build' if trial is None else f't{trial}'}-{digest}"


def label_value(value: Any) -> str:
    """Return a value as a label can hold it; one that must be changed gets a digest, so that it stays unique."""
    text = str(value)
    if re.fullmatch(rf"[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,{_LONGEST - 2}}}[A-Za-z0-9])?", text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    kept = re.sub(r"[^-A-Za-z0-9_.]+", "-", text)[: _LONGEST - len(digest) - 1].strip("-_.")
    return f"{kept}-{digest}".strip("-")


def overlay(base: Any, over: Any) -> Any:
    """Lay one piece of a manifest over another, as Kubernetes' strategic merge does it.

    Mappings are merged; lists of named things (containers, variables, volumes, mounts) by their names, with what is
    new at the end; all else is replaced.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, list) and isinstance(value, list):
            merged[key] = _merge_lists(old, value, _NAMED_LISTS.get(key, "name"))
        else:
            merged[key] = overlay(old, value)
    return merged


def _merge_lists(base: list[Any], over: list[Any], key: str) -> list[Any]:
    if not all(isinstance(item, dict) and key in item for item in [*base, *over]):
        return over
    merged = {item[key]: item for item in base}
    for item in over:
        merged[item[key]] = overlay(merged.get(item[key]), item)
    return list(merged.values())


def _number(amount: float) -> str:
    return str(int(amount)) if amount == int(amount) else str(amount)


def _environment(command: TrialCommand, settings: PodSettings) -> dict[str, Any]:
    variables: dict[str, Any] = {"PYTHONUNBUFFERED": "1"}
    if not settings.has_gpu:
        # As Polyaxon: otherwise images made for GPUs see all of the node's, asked for or not.
        variables["NVIDIA_VISIBLE_DEVICES"] = "none"
    variables |= dict(command.env) | dict(settings.env)
    contract = {name: value for name, value in command.env.items() if name.startswith(_CONTRACT)}
    return variables | contract | {"HPTUNING_TERMINATION_LOG": TERMINATION_LOG}


def _variable(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"name": name, "valueFrom": value}
    return {"name": name, "value": _literal(str(value))}


def _literal(text: str) -> str:
    # Kubernetes replaces $(NAME) in commands and variables, and $$ is how it spells a dollar.
    return text.replace("$", "$$")


def _without_empty(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None and value not in ({}, [], "")}
