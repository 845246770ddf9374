"""What the status of a pod means for its trial."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_hptuning.runners import pod_status
from airflow_hptuning.trials import FailureClass

NODES = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def pod(
    state: dict[str, Any] | None = None,
    *,
    phase: str = "Running",
    restarts: int = 0,
    last: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> pod_status.Pod:
    """Make a pod of the API; ``state`` is that of the trial's container."""
    container = {"name": "base", "image": "train:1", "restartCount": restarts, "state": state or {}}
    if last:
        container["lastState"] = last
    containers = [{"name": "proxy", "state": {"running": {}}}, container]
    return {
        "metadata": metadata or {},
        "spec": {"containers": [{"name": "base", "resources": {"limits": {"memory": "100Mi"}}}]},
        "status": {
            "phase": phase,
            **({"containerStatuses": containers} if state is not None else {}),
            **(status or {}),
        },
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The state of a container that waits."""
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", at: str = "2026-11-25T12:00:10Z", **more: Any) -> dict[str, Any]:
    """The state of a container that has ended."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": "2026-11-25T12:00:00Z",
            "finishedAt": at,
            **more,
        }
    }


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_pulled(reason: str) -> None:
    """The failure names the image and what the kubelet says."""
    failure = pod_status.start_failure(pod(waiting(reason, "Back-off pulling"), phase="Pending"))
    assert failure is not None
    assert failure.failure_class is FailureClass.IMAGE
    assert "train:1" in failure.reason
    assert "Back-off pulling" in failure.reason


@pytest.mark.parametrize("reason", ["ErrImagePull", "ContainerCreating", "PodInitializing"])
def test_what_may_still_start(reason: str) -> None:
    """The first failing pull is not the last word."""
    assert pod_status.start_failure(pod(waiting(reason), phase="Pending")) is None


def test_a_container_that_cannot_be_run() -> None:
    """A command that the image does not have is the user's."""
    failure = pod_status.start_failure(pod(ended(128, "StartError", message='exec: "/bin/sh": no such file')))
    assert failure is not None
    assert (failure.failure_class, '"/bin/sh"' in failure.reason) == (FailureClass.USER_CODE, True)


def test_a_missing_secret() -> None:
    """It may yet come, so it is told apart from what cannot start."""
    missing = pod(waiting("CreateContainerConfigError", 'secret "hub" not found'), phase="Pending")
    assert pod_status.start_failure(missing) is None
    failure = pod_status.configuration_failure(missing)
    assert failure is not None
    assert 'secret "hub" not found' in failure.reason


def test_no_node_takes_the_pod() -> None:
    """The scheduler's own words; an infrastructure failure, as a node may come."""
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NODES}]
    failure = pod_status.startup_timeout(pod(phase="Pending", status={"conditions": conditions}), 600, [])
    assert failure.failure_class is FailureClass.UNSCHEDULABLE
    assert failure.failure_class.is_infrastructure
    assert NODES in failure.reason


def test_a_start_that_takes_too_long() -> None:
    """What the container waits for, and the latest warnings."""
    events = [{"type": "Normal", "message": "Scheduled"}, {"type": "Warning", "message": "FailedMount: timed out"}]
    failure = pod_status.startup_timeout(pod(waiting("ContainerCreating"), phase="Pending"), 60, events)
    assert failure.failure_class is FailureClass.INFRASTRUCTURE
    assert failure.reason.endswith("ContainerCreating; FailedMount: timed out")


def test_out_of_memory() -> None:
    """With the limit that was passed."""
    failure = pod_status.out_of_memory(pod(ended(137, "OOMKilled")))
    assert failure is not None
    assert (failure.failure_class, "100Mi" in failure.reason) == (FailureClass.OOM, True)
    assert pod_status.out_of_memory(pod(ended(137))) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"reason": "Evicted", "message": "The node was low on resource: memory."}, FailureClass.EVICTED),
        ({"reason": "Preempting", "message": "Preempted by a pod"}, FailureClass.EVICTED),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            FailureClass.EVICTED,
        ),
        ({"reason": "DeadlineExceeded", "message": "Pod was active too long"}, FailureClass.TIMEOUT),
        ({"reason": "UnexpectedAdmissionError", "message": "no device"}, FailureClass.INFRASTRUCTURE),
    ],
)
def test_pods_that_fail_as_a_whole(status: dict[str, Any], kind: FailureClass) -> None:
    """Whatever the container did."""
    failure = pod_status.pod_failure(pod(phase="Failed", status=status))
    assert failure is not None
    assert failure.failure_class is kind


def test_a_pod_whose_container_failed_is_not_a_failing_pod() -> None:
    """The container's exit code says more."""
    assert pod_status.pod_failure(pod(ended(1), phase="Failed")) is None


@pytest.mark.parametrize(
    ("found", "max_restarts", "code"),
    [
        (pod(ended(0), phase="Succeeded"), 0, 0),
        (pod(ended(3), phase="Failed"), 0, 3),
        (pod({"running": {}}), 0, None),
        (pod(ended(3)), 2, None),
        (pod(ended(3), restarts=2), 2, 3),
        (pod(waiting("CrashLoopBackOff"), restarts=1, last=ended(4)), 2, None),
        (pod(waiting("CrashLoopBackOff"), restarts=2, last=ended(4)), 2, 4),
        (pod({"running": {}}, restarts=2, last=ended(4)), 2, None),
    ],
)
def test_when_a_container_has_ended(found: pod_status.Pod, max_restarts: int, code: int | None) -> None:
    """For good: a container that Kubernetes restarts in place has not."""
    state = pod_status.terminated(found, max_restarts)
    assert (None if state is None else state["exitCode"]) == code


@pytest.mark.parametrize(
    ("state", "deleted"),
    [
        ({"running": {"startedAt": "2026-11-25T12:00:00Z"}}, True),
        (ended(143, at="2026-11-25T12:00:31Z"), True),
        (ended(0, "Completed", at="2026-11-25T12:00:31Z"), True),
        (ended(0, "Completed", at="2026-11-25T12:00:10Z"), False),
    ],
)
def test_a_deletion_under_way(state: dict[str, Any], *, deleted: bool) -> None:
    """A trial that had ended before somebody deleted its pod has a result; one that took the signal for it has not."""
    # The time stamp is that of the end of the grace period: asked for at 12:00:30.
    metadata = {"deletionTimestamp": "2026-11-25T12:01:00Z", "deletionGracePeriodSeconds": 30}
    assert pod_status.was_deleted(pod(state, metadata=metadata)) is deleted
    assert not pod_status.was_deleted(pod(state))


def test_who_deleted_a_pod() -> None:
    """The cluster says so in an event; somebody else does not."""
    preempted = {"reason": "Preempted", "message": "by default/urgent on node n1"}
    failure = pod_status.deletion_failure([{"reason": "Started"}, preempted])
    assert failure.failure_class is FailureClass.EVICTED
    assert "default/urgent" in failure.reason
    assert pod_status.deletion_failure([]).failure_class is FailureClass.INFRASTRUCTURE


def test_times() -> None:
    """Seconds since the epoch, from the state of now or from the one before a restart."""
    assert pod_status.started_at(pod(ended(0))) == 1795608000
    assert pod_status.started_at(pod({"running": {"startedAt": "2026-11-25T12:00:05Z"}})) == 1795608005
    assert pod_status.started_at(pod(waiting("CrashLoopBackOff"), last=ended(1))) == 1795608000
    assert pod_status.started_at(pod(waiting("ContainerCreating"))) is None
    assert pod_status.started_at({}) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "unknown"),
        (pod(phase="Pending"), "pending"),
        (pod(waiting("ContainerCreating"), phase="Pending"), "waiting: ContainerCreating"),
        (
            pod(
                phase="Pending", status={"conditions": [{"type": "PodScheduled", "status": "False", "message": NODES}]}
            ),
            f"not scheduled: {NODES}",
        ),
    ],
)
def test_what_a_log_says_of_a_start(found: pod_status.Pod, words: str) -> None:
    """In a few words."""
    assert pod_status.describe(found) == words
