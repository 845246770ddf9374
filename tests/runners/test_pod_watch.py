"""Watching a pod, against one that does as it is told: what a real cluster shows only now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from airflow_hptuning.runners import pod_watch
from airflow_hptuning.runners.pod_watch import PodForbiddenError, PodUnreachableError, PodWatch
from airflow_hptuning.trials import FailureClass, Outcome
from tests.runners.test_pod_status import ended, pod, waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

RUNNING = pod({"running": {"startedAt": "2026-11-25T12:00:00Z"}})
DONE = pod(ended(0, "Completed"), phase="Succeeded")


@define
class FakePod:
    """A pod that goes through states and logs; the last of each stays.

    Attributes:
        states: What ``read`` returns, or raises, one after the other.
        logs: What each reading of the log yields; an exception ends it.
        told: Events of the pod.
        deleted: Grace periods of the deletions.
        after_delete: What ``read`` returns once it is deleted.
    """

    states: list[Any] = field(factory=lambda: [RUNNING, DONE])
    logs: list[list[bytes | Exception]] = field(factory=lambda: [[]])
    told: Sequence[dict[str, Any]] = ()
    deleted: list[float] = field(factory=list)
    after_delete: Any = None
    _end: asyncio.Event = field(factory=asyncio.Event)

    async def read(self) -> Any:
        """Return the next state."""
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return state

    async def log(self) -> AsyncIterator[bytes]:
        """Yield the next log."""
        chunks = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
        for chunk in chunks:
            await asyncio.sleep(0.02)
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
        if self.states == [RUNNING]:
            await self._end.wait()

    async def delete(self, grace: float) -> None:
        """Remember the deletion."""
        self.deleted.append(grace)
        self._end.set()
        self.states = [self.after_delete]

    async def events(self) -> Sequence[dict[str, Any]]:
        """Return the events."""
        return self.told


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once: the order counts here, not the time."""
    monkeypatch.setattr(pod_watch, "_POLL", 0.01)
    monkeypatch.setattr(pod_watch, "_STOP_INTERVAL", 0.01)


class Watched:
    """A watch with what it called back."""

    def __init__(self, fake: FakePod, should_stop: Callable[[], str | None] = lambda: None, **options: Any) -> None:
        self.lines: list[str] = []
        self.said: list[str] = []
        self.restarts = 0
        self.watch = PodWatch(
            fake,
            on_lines=self.lines.extend,
            on_restart=self._restart,
            should_stop=should_stop,
            say=self.said.append,
            **options,
        )
        self.outcome: Outcome = asyncio.run(self.watch.run())

    def _restart(self) -> None:
        self.restarts += 1
        self.lines.clear()


def test_a_trial_that_ends_well() -> None:
    """Lines over the borders of chunks, the last without an end; times and exit code of the container."""
    seen = Watched(FakePod(logs=[[b"one\ntw", b"o\nthr\xffee"]]))
    assert seen.lines == ["one", "two", "thr\ufffdee"]
    assert (seen.outcome.exit_code, seen.outcome.failure, seen.outcome.stopped) == (0, None, None)
    assert seen.outcome.ended - seen.outcome.started == 10
    assert seen.outcome.log_tail == tuple(seen.lines)
    assert seen.restarts == 0


def test_the_termination_message_is_the_summary() -> None:
    """What ``tracking`` left is handed on."""
    done = pod(ended(0, "Completed", message='{"hptuning": 1}'), phase="Succeeded")
    assert Watched(FakePod(states=[RUNNING, done])).watch.summary == '{"hptuning": 1}'


def test_a_broken_log_starts_over() -> None:
    """What was read before the connection broke is read again, and counts once."""
    broken: list[bytes | Exception] = [b"one\ntwo\n", PodUnreachableError("reset")]
    seen = Watched(FakePod(states=[*[RUNNING] * 8, DONE], logs=[broken, [b"one\ntwo\nthree\n"]]))
    assert seen.lines == ["one", "two", "three"]
    assert seen.restarts == 1


def test_a_log_that_breaks_with_the_container_is_read_again() -> None:
    """The pod has ended, but its last lines have not been read."""
    broken: list[bytes | Exception] = [b"one\n", PodUnreachableError("reset")]
    seen = Watched(FakePod(logs=[broken, [b"one\ntwo"]]))
    assert (seen.lines, seen.restarts) == (["one", "two"], 1)


def test_an_unreachable_cluster_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors in between cost nothing; only after a long time is the trial lost."""
    down = [PodUnreachableError("503")] * 3
    assert Watched(FakePod(states=[*down, RUNNING, *down, DONE])).outcome.exit_code == 0
    monkeypatch.setattr(pod_watch, "_PATIENCE", 0.05)
    failure = Watched(FakePod(states=[PodUnreachableError("503")])).outcome.failure
    assert failure is not None
    assert (failure.failure_class, "503" in failure.reason) == (FailureClass.INFRASTRUCTURE, True)


def test_a_refusal_is_final() -> None:
    """Rights that are missing do not come by waiting."""
    for fake in (FakePod(states=[PodForbiddenError("403 pods")]), FakePod(logs=[[PodForbiddenError("403 pods/log")]])):
        failure = Watched(fake).outcome.failure
        assert failure is not None
        assert failure.reason.startswith("Kubernetes refuses: 403")


def test_a_stop_deletes_the_pod_and_keeps_the_lines() -> None:
    """What the trial prints as a goodbye is seen, what the kubelet adds is not; the outcome has no exit code."""
    kubelet = b'rpc error: code = NotFound desc = an error occurred when try to find container "x"\n'
    fake = FakePod(states=[RUNNING], logs=[[b"one\n"]])
    reasons = iter([None, "goal reached"])
    seen = Watched(fake, should_stop=lambda: next(reasons), grace=3)
    assert (seen.outcome.stopped, seen.outcome.exit_code, seen.outcome.failure) == ("goal reached", None, None)
    assert fake.deleted == [3]
    assert seen.lines == ["one"]
    late = Watched(FakePod(states=[RUNNING], logs=[[b"one\n", b"bye\n", kubelet]]), should_stop=lambda: "goal")
    assert late.lines[-1] != kubelet.decode().strip()


def test_a_stop_that_comes_too_late() -> None:
    """The trial had ended when it was told to, though its status did not say so yet."""
    fake = FakePod(states=[RUNNING], logs=[[b"one\n"]], after_delete=DONE)
    seen = Watched(fake, should_stop=lambda: "goal reached")
    assert (seen.outcome.exit_code, seen.outcome.stopped) == (0, None)


def test_a_trial_that_takes_the_signal_for_an_end_was_stopped() -> None:
    """It exits with 0, but after it was told to."""
    ends_now = pod(ended(0, "Completed", at="2036-11-25T12:00:10Z"), phase="Succeeded")
    fake = FakePod(states=[RUNNING], after_delete=ends_now)
    assert Watched(fake, should_stop=lambda: "goal reached").outcome.stopped == "goal reached"


def test_a_trial_that_is_stopped_before_it_starts_never_ran() -> None:
    """Its pod is deleted while it is still pending."""
    fake = FakePod(states=[pod(waiting("ContainerCreating"), phase="Pending")])
    seen = Watched(fake, should_stop=lambda: "goal reached")
    assert (seen.outcome.stopped, seen.watch.has_started) == ("goal reached", False)
    assert len(fake.deleted) == 1


def test_a_trial_has_run_whatever_its_status_says_later() -> None:
    """A kubelet that is busy deleting a pod may call its container one that is yet to be made."""
    fake = FakePod(states=[RUNNING], logs=[[b"loss=1\n"]], after_delete=pod(waiting("ContainerCreating")))
    seen = Watched(fake, should_stop=lambda: "goal reached")
    assert (seen.outcome.stopped, seen.watch.has_started, seen.lines) == ("goal reached", True, ["loss=1"])
    assert seen.outcome.started == Watched(FakePod()).outcome.started


def test_time_is_up() -> None:
    """Counted from the start of the container, not of the watch."""
    fake = FakePod(states=[RUNNING])
    seen = Watched(fake, timeout=1.0)
    assert (seen.outcome.timed_out, seen.outcome.stopped) == (True, None)
    assert len(fake.deleted) == 1


def test_a_pod_that_has_gone() -> None:
    """Deleted by somebody: not the trial's fault."""
    for states in ([None], [RUNNING, None]):
        failure = Watched(FakePod(states=list(states))).outcome.failure
        assert failure is not None
        assert failure.failure_class is FailureClass.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (pod(waiting("ImagePullBackOff"), phase="Pending"), FailureClass.IMAGE),
        (pod(phase="Failed", status={"reason": "Evicted"}), FailureClass.EVICTED),
        (pod(waiting("CreateContainerConfigError"), phase="Pending"), FailureClass.INFRASTRUCTURE),
        (pod(waiting("ContainerCreating"), phase="Pending"), FailureClass.INFRASTRUCTURE),
        (
            pod(phase="Pending", status={"conditions": [{"type": "PodScheduled", "status": "False"}]}),
            FailureClass.UNSCHEDULABLE,
        ),
    ],
)
def test_pods_that_do_not_start(monkeypatch: pytest.MonkeyPatch, state: Any, kind: FailureClass) -> None:
    """Told apart, at once or when the patience ends."""
    monkeypatch.setattr(pod_watch, "_CONFIGURATION_PATIENCE", 0.05)
    failure = Watched(FakePod(states=[state]), startup_timeout=0.2).outcome.failure
    assert failure is not None
    assert failure.failure_class is kind


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (pod(ended(137, "OOMKilled"), phase="Failed"), FailureClass.OOM),
        (pod(ended(1), phase="Failed", status={"reason": "Evicted"}), FailureClass.EVICTED),
        (pod(ended(128, "StartError"), phase="Failed"), FailureClass.USER_CODE),
    ],
)
def test_pods_that_fail(state: Any, kind: FailureClass) -> None:
    """The pod's own story comes before the container's exit code."""
    failure = Watched(FakePod(states=[RUNNING, state])).outcome.failure
    assert failure is not None
    assert failure.failure_class is kind


def test_an_exit_code_is_left_to_the_record() -> None:
    """As with the local runner; only a failing build step is named here."""
    failed = pod(ended(3), phase="Failed")
    outcome = Watched(FakePod(states=[RUNNING, failed], logs=[[b"oh no\n"]])).outcome
    assert (outcome.exit_code, outcome.failure) == (3, None)
    said = b"hptuning: build step 1 of 2 failed (exit code 3): pip install x\n"
    failure = Watched(FakePod(states=[RUNNING, failed], logs=[[said]])).outcome.failure
    assert failure is not None
    assert failure.reason == "build step 1 of 2 failed (exit code 3): pip install x"


def test_a_container_that_is_restarted_in_place() -> None:
    """Its log starts over, and only the last life counts."""
    crashed = pod(waiting("CrashLoopBackOff"), restarts=1, last=ended(1))
    again = pod({"running": {"startedAt": "2026-11-25T12:00:20Z"}}, restarts=1, last=ended(1))
    fake = FakePod(states=[RUNNING, *[crashed] * 8, again, DONE], logs=[[b"loss=9\n"], [b"loss=1\n"]])
    seen = Watched(fake, max_restarts=2)
    assert (seen.lines, seen.outcome.exit_code) == (["loss=1"], 0)


def test_what_is_said_while_it_starts() -> None:
    """Each stage once."""
    creating = pod(waiting("ContainerCreating"), phase="Pending")
    seen = Watched(FakePod(states=[pod(phase="Pending"), creating, creating, RUNNING, DONE]))
    assert seen.said == ["The pod is pending", "The pod is waiting: ContainerCreating"]
