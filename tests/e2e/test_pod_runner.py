"""A pod and its watch, without Airflow, as one more runner of trials: the conformance kit on a real cluster."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_hptuning.operators.pod_client import AsyncPod
from airflow_hptuning.runners.pod_watch import PodWatch
from airflow_hptuning.runners.pods import CONTAINER, PodSettings, trial_pod
from airflow_hptuning.trials import Failure, FailureClass, Outcome
from tests.kits.runners import MakeRunner, RunnerConformance
from tests.live_cluster import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_hptuning.trials import TrialCommand
    from tests.live_cluster import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

KILLED = Failure(FailureClass.INFRASTRUCTURE, "killed before the pod was made")


class PodRunner:
    """Runs a trial as a pod; what the trial's task and trigger do for Airflow."""

    def __init__(self, cluster: Cluster, env: dict[str, str] | None, timeout: float | None, grace: float) -> None:
        self._cluster = cluster
        self._env = env or {}
        self._timeout = timeout
        self._grace = grace
        self._name = f"pods-kit-{uuid.uuid4().hex[:10]}"
        self._killed = False

    def run(
        self,
        command: TrialCommand,
        *,
        on_line: Callable[[str], None],
        should_stop: Callable[[], str | None] | None = None,
    ) -> Outcome:
        """Run a trial to its end."""
        now = time.time()
        if self._killed:
            return Outcome(None, now, now, failure=KILLED)
        settings = PodSettings(
            "python:3.11",
            env=self._env | dict(command.env),
            volumes=[{"name": "tmp", "hostPath": {"path": "/tmp"}}],  # noqa: S108 - pytest's folders, for one test
            volume_mounts=[{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - as above
        )
        manifest = trial_pod(
            command, settings, name=self._name, labels={"hptuning/sweep": "pods_kit"}, grace=self._grace
        )
        self._cluster.core.create_namespaced_pod(NAMESPACE, manifest)
        try:
            return asyncio.run(self._watch(on_line, should_stop or (lambda: None)))
        finally:
            self._delete(0)

    async def _watch(self, on_line: Callable[[str], None], should_stop: Callable[[], str | None]) -> Outcome:
        client = AsyncPod(self._name, NAMESPACE, "kubernetes_default", CONTAINER)

        lines: list[str] = []
        told = 0

        def on_lines(new: list[str]) -> None:
            nonlocal told
            lines.extend(new)
            # A log that starts over begins with the lines that are known.
            for line in lines[told:]:
                on_line(line)
            told = max(told, len(lines))

        watch = PodWatch(
            client,
            on_lines=on_lines,
            on_restart=lines.clear,
            # The kit speaks of trials that run; a pod may also be stopped before that.
            should_stop=lambda: should_stop() if watch.has_started else None,
            timeout=self._timeout,
            startup_timeout=60,
            grace=self._grace,
        )
        try:
            return await watch.run()
        finally:
            await client.close()

    def kill(self) -> None:
        """End the trial that runs, as the task of a killed trial does: the pod is deleted."""
        self._killed = True
        threading.Thread(target=self._delete, args=(self._grace,)).start()

    def _delete(self, grace: float) -> None:
        with suppress(Exception):
            self._cluster.delete(self._name, round(grace))


class TestPodRunner(RunnerConformance):
    """The kit, on pods."""

    @pytest.fixture
    def make_runner(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> MakeRunner:
        """Return what makes a runner of pods, with the rights of the limited service account."""
        monkeypatch.setenv("KUBECONFIG", str(cluster.limited))
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", _connection(cluster.limited))

        def make(*, env: dict[str, str] | None = None, timeout: float | None = None, grace: float = 5) -> PodRunner:
            return PodRunner(cluster, env, timeout, grace)

        return make

    def test_lines_in_order(self, make_runner: Any) -> None:
        """Each stream in the order of writing; a container has two, which its runtime may mix."""
        lines: list[str] = []
        outcome = make_runner().run(_command("echo one; echo two >&2; echo; echo four"), on_line=lines.append)
        assert [line for line in lines if line != "two"] == ["one", "", "four"]
        assert sorted(lines) == sorted(outcome.log_tail) == ["", "four", "one", "two"]

    def test_a_trial_may_say_goodbye(self, make_runner: Any) -> None:
        """What a trial prints when it gets the signal is seen, beside what its shell says of the signal."""
        lines: list[str] = []
        script = "trap 'echo saving; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        outcome = make_runner().run(_command(script), on_line=lines.append, should_stop=lambda: "goal")
        assert lines[0] == "ready"
        assert "saving" in lines
        assert outcome.stopped == "goal"

    def test_times(self, make_runner: Any) -> None:
        """Kubernetes keeps whole seconds, and the outcome says when the container ran."""
        before = int(time.time())
        outcome = make_runner().run(_command("sleep 2"), on_line=lambda _: None)
        assert before <= outcome.started < outcome.ended <= time.time()

    def test_a_stop_that_comes_too_late(self, make_runner: Any) -> None:
        """As in the kit, for a trial that has surely ended by then: its log says so before its status does."""
        seen: list[float] = []

        def asked() -> str | None:
            return "goal" if seen and time.time() > seen[0] + 2 else None

        outcome = make_runner().run(_command("echo end"), on_line=lambda _: seen.append(time.time()), should_stop=asked)
        assert (outcome.exit_code, outcome.stopped) == (0, None)


def _command(script: str) -> TrialCommand:
    from airflow_hptuning.trials import TrialCommand

    return TrialCommand(script, {}, "")


def _connection(kubeconfig: Path) -> str:
    return f'{{"conn_type": "kubernetes", "extra": {{"kube_config_path": "{kubeconfig}"}}}}'
