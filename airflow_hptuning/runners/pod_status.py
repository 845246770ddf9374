"""The status of a pod, as Kubernetes reports it, and what it means for the trial: pure functions of plain data.

A pod is the JSON object of the API. Where a finding rests on the cluster's own words (the scheduler's, the kubelet's),
they are in the reason.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_hptuning.runners.pods import CONTAINER
from airflow_hptuning.trials import Failure, FailureClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Pod = dict[str, Any]

_IMAGE: Final = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
"""``ErrImagePull`` is not among them: the kubelet tries again before it backs off."""

_CONFIGURATION: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_EVICTED: Final = frozenset(
    {"Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated"}
)
_PREEMPTED: Final = frozenset({"Preempted", "Preempting", "TaintManagerEviction", "Evicted", "NodeNotReady"})
"""Reasons of events that say that the cluster itself took the pod away."""

_NOT_STARTED: Final = frozenset({"ContainerCannotRun", "StartError"})
_WORDS: Final = 500


def container_status(pod: Pod) -> Mapping[str, Any]:
    """Return the status of the trial's container; empty as long as there is none."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Mapping[str, Any] = next((status for status in statuses if status.get("name") == CONTAINER), {})
    return found


def terminated(pod: Pod, max_restarts: int = 0) -> Mapping[str, Any] | None:
    """Return how the trial's container ended for good, or None.

    Args:
        pod: The pod.
        max_restarts: How often Kubernetes may restart the container in place.
    """
    status = container_status(pod)
    state = status.get("state") or {}
    ended: Mapping[str, Any] | None = state.get("terminated")
    restarts = status.get("restartCount", 0)
    phase = (pod.get("status") or {}).get("phase")
    if ended is not None and (not ended.get("exitCode") or restarts >= max_restarts or phase == "Failed"):
        return ended
    if state.get("waiting") and restarts and restarts >= max_restarts:
        last: Mapping[str, Any] | None = (status.get("lastState") or {}).get("terminated")
        return last
    return None


def started_at(pod: Pod) -> float | None:
    """Return when the trial's container (last) started, in seconds since the epoch; None if it has not."""
    status = container_status(pod)
    for state in (status.get("state") or {}, status.get("lastState") or {}):
        for kind in ("running", "terminated"):
            at = seconds((state.get(kind) or {}).get("startedAt"))
            if at is not None:
                return at
    return None


def is_over(pod: Pod) -> bool:
    """Whether the pod has ended, with or without a container that ever ran."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def pod_failure(pod: Pod) -> Failure | None:
    """Return why the pod as a whole failed, whatever its container did: evicted, out of time."""
    status = pod.get("status") or {}
    reason, words = status.get("reason") or "", _short(status.get("message"))
    if reason == "DeadlineExceeded":
        return Failure(FailureClass.TIMEOUT, f"Kubernetes ended the pod: {words or 'its deadline has passed'}")
    disrupted = _condition(pod, "DisruptionTarget")
    if disrupted and disrupted.get("status") == "True":
        reason, words = "Evicted", _short(disrupted.get("message")) or disrupted.get("reason", "")
    if reason in _EVICTED:
        return Failure(FailureClass.EVICTED, f"the pod was evicted ({status.get('reason') or reason}): {words}")
    if is_over(pod) and reason and not container_status(pod):
        return Failure(FailureClass.INFRASTRUCTURE, f"the pod failed ({reason}): {words}")
    return None


def was_deleted(pod: Pod) -> bool:
    """Whether somebody has asked for the pod's deletion before its container ended."""
    metadata = pod.get("metadata") or {}
    at = seconds(metadata.get("deletionTimestamp"))
    if at is None:
        return False
    ended = terminated(pod)
    # The time stamp is that of the end of the grace period.
    asked = at - float(metadata.get("deletionGracePeriodSeconds") or 0)
    finished = seconds(ended.get("finishedAt")) if ended else None
    return finished is None or finished >= asked


def deletion_failure(events: Iterable[Mapping[str, Any]]) -> Failure:
    """Return why a pod that has gone without a result counts as failed."""
    for event in events:
        if event.get("reason") in _PREEMPTED:
            words = _short(event.get("message"))
            return Failure(FailureClass.EVICTED, f"the pod was taken away ({event['reason']}): {words}")
    return Failure(FailureClass.INFRASTRUCTURE, "the pod was deleted by somebody while the trial ran")


def start_failure(pod: Pod) -> Failure | None:
    """Return why the container cannot start, where waiting longer does not help."""
    waiting = _waiting(pod)
    if waiting.get("reason") in _IMAGE:
        return Failure(FailureClass.IMAGE, f"the image cannot be pulled ({waiting['reason']}): {_said(pod, waiting)}")
    ended = terminated(pod)
    if ended is not None and ended.get("reason") in _NOT_STARTED:
        return Failure(FailureClass.USER_CODE, f"the container could not be started: {_short(ended.get('message'))}")
    return None


def configuration_failure(pod: Pod) -> Failure | None:
    """Return what of the container's configuration the kubelet complains of; it may yet come (a secret, say)."""
    waiting = _waiting(pod)
    if waiting.get("reason") not in _CONFIGURATION:
        return None
    return Failure(
        FailureClass.INFRASTRUCTURE,
        f"the container could not be made ({waiting['reason']}): {_short(waiting.get('message'))}",
    )


def startup_timeout(pod: Pod, timeout: float, events: Iterable[Mapping[str, Any]]) -> Failure:
    """Return why a pod that has not started in time counts as failed."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        words = _short(scheduled.get("message")) or scheduled.get("reason", "")
        return Failure(FailureClass.UNSCHEDULABLE, f"no node took the pod within {timeout:g} s: {words}")
    waiting = _waiting(pod)
    words = _said(pod, waiting)
    warnings = [_short(event.get("message")) for event in events if event.get("type") == "Warning"]
    told = "; ".join(text for text in [words, *warnings[-2:]] if text)
    return Failure(
        FailureClass.INFRASTRUCTURE, f"the pod did not start within {timeout:g} s{': ' if told else ''}{told}"
    )


def out_of_memory(pod: Pod) -> Failure | None:
    """Return that the container was killed for its memory, with the limit that it had, or None."""
    ended = terminated(pod)
    if ended is None or ended.get("reason") != "OOMKilled":
        return None
    containers = (pod.get("spec") or {}).get("containers") or []
    limits = [(c.get("resources") or {}).get("limits") or {} for c in containers if c.get("name") == CONTAINER]
    limit = limits[0].get("memory") if limits else None
    which = f"more than its limit of {limit}" if limit else "more than the node had"
    return Failure(FailureClass.OOM, f"it used {which} of memory and was killed (OOMKilled)")


def describe(pod: Pod) -> str:
    """Say in a few words where a pod that has not started is, for the log."""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        return f"not scheduled: {_short(scheduled.get('message'))}"
    waiting = _waiting(pod)
    if waiting:
        return f"waiting: {waiting.get('reason', '')} {_short(waiting.get('message'))}".strip()
    return str((pod.get("status") or {}).get("phase") or "unknown").lower()


def seconds(text: str | None) -> float | None:
    """Return a time of the API in seconds since the epoch."""
    return None if not text else datetime.fromisoformat(text).timestamp()


def _waiting(pod: Pod) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (container_status(pod).get("state") or {}).get("waiting") or {}
    return found


def _said(pod: Pod, waiting: Mapping[str, Any]) -> str:
    image = container_status(pod).get("image") or ""
    words = _short(waiting.get("message")) or str(waiting.get("reason") or "")
    return words if not image or image in words else f"{image}: {words}"


def _condition(pod: Pod, kind: str) -> Mapping[str, Any] | None:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def _short(text: str | None) -> str:
    return " ".join((text or "").split())[:_WORDS]
