"""Watching a pod: from its creation to the outcome of its trial.

The watch reads the pod's log as it is written, from its first line, and asks Kubernetes how the pod is only where the
log cannot tell: until the container has started, after its log has ended, and now and then in between. A broken
connection to the log starts it over from the first line, so that no line is lost or counts twice.

Everything the watch calls back (lines, ``should_stop``) runs in the task that called ``run``.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_hptuning.errors import HptuningError
from airflow_hptuning.runners import pod_status
from airflow_hptuning.runners.lines import LineSplitter, Tail
from airflow_hptuning.runners.pod_script import SAYS, STEP_FAILED
from airflow_hptuning.trials import Failure, FailureClass, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

_POLL: Final = 1.0
"""Seconds between two looks at a pod that is starting or ending."""

_RARE_POLL: Final = 30.0
"""Seconds between two looks at a pod whose log is being read."""

_STOP_INTERVAL: Final = 1.0
_PATIENCE: Final = 600.0
"""Seconds without an answer from Kubernetes after which a trial counts as lost."""

_CONFIGURATION_PATIENCE: Final = 30.0
"""Seconds for which the kubelet may miss a secret, say, before the trial fails."""

_LOST: Final = 120.0
"""Seconds without a log and without an end after which a pod's node counts as lost."""

_SETTLING: Final = 6
"""How often to look whether a pod whose log has ended has ended as well."""

_REREADS: Final = 5
"""How often the log of a pod that has ended is read again because the connection broke."""

_KUBELET_SAYS: Final = "rpc error: code = "

_QUEUE: Final = 16
"""Chunks of the log that may wait to be read."""


class PodUnreachableError(HptuningError):
    """Kubernetes could not be asked; it may answer later."""


class PodForbiddenError(HptuningError):
    """Kubernetes refused, and will refuse again."""


class PodClient(Protocol):
    """One pod, as the watch sees it.

    All methods raise ``PodUnreachableError`` where another try may succeed, ``PodForbiddenError`` where not.
    """

    async def read(self) -> pod_status.Pod | None:
        """Return the pod, or None if it is gone."""

    def log(self) -> AsyncIterator[bytes]:
        """Yield the log from its beginning, as it is written, until the container ends."""

    async def delete(self, grace: float) -> None:
        """Delete the pod; fine if it is gone."""

    async def events(self) -> Sequence[dict[str, Any]]:
        """Return the events of the pod; empty if they may not be read."""


class PodWatch:
    """Watches one pod.

    Args:
        client: The pod.
        on_lines: Called with the lines of the log, as many as have come; otherwise as ``on_line`` of
            ``LocalRunner.run``.
        on_restart: Called when the log starts over: what was seen of it does not count.
        should_stop: Asked about every second; a text ends the trial, and is the reason.
        timeout: Seconds that the container may run.
        startup_timeout: Seconds that it may take to start.
        grace: Seconds between SIGTERM and SIGKILL.
        max_restarts: How often Kubernetes may restart the container in place.
        say: Called with what a reader of the log should know.
    """

    def __init__(
        self,
        client: PodClient,
        *,
        on_lines: Callable[[list[str]], None],
        on_restart: Callable[[], None],
        should_stop: Callable[[], str | None],
        timeout: float | None = None,
        startup_timeout: float = 600,
        grace: float = 5,
        max_restarts: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._on_lines = on_lines
        self._on_restart = on_restart
        self._should_stop = should_stop
        self._timeout = timeout
        self._startup_timeout = startup_timeout
        self._grace = grace
        self._max_restarts = max_restarts
        self._say = say
        self._tail = Tail()
        self._splitter = LineSplitter()
        self._pod: pod_status.Pod = {}
        self._started_at: float | None = None
        self._watched_since = time.time()
        self._stop_at = time.monotonic()
        self._stopped: str | None = None
        self._timed_out = False
        self._told_at = 0.0
        self._described = ""
        self._complained_at: float | None = None
        self._is_log_broken = False
        self._refusal: PodForbiddenError | None = None

    @property
    def has_started(self) -> bool:
        """Whether the trial's container has ever run."""
        return self._started_at is not None

    @property
    def summary(self) -> str:
        """What ``tracking`` has left in the termination message; empty if it has not."""
        ended = pod_status.terminated(self._pod, self._max_restarts) or {}
        return str(ended.get("message") or "")

    async def run(self) -> Outcome:
        """Return when the trial has ended, with its outcome; the pod itself is left, unless it had to be stopped."""
        try:
            failure = await self._start()
            if failure is None and not self._is_told_to_end():
                failure = await self._follow()
            if self._is_told_to_end() and self.has_started and await self._settled() is not None:
                self._forget_what_came_too_late()
        except PodForbiddenError as error:
            failure = Failure(FailureClass.INFRASTRUCTURE, f"Kubernetes refuses: {error}")
        except PodUnreachableError as error:
            reason = f"Kubernetes has not answered for {_PATIENCE:g} s: {error}"
            failure = Failure(FailureClass.INFRASTRUCTURE, reason)
        return self._outcome(failure)

    # --- the start ---

    async def _start(self) -> Failure | None:
        """Wait until the container has started, or cannot."""
        while True:
            pod = await self._look()
            if pod is None:
                return pod_status.deletion_failure(await self._events())
            if pod_status.started_at(pod) is not None:
                return pod_status.start_failure(pod)
            failure = pod_status.pod_failure(pod) or pod_status.start_failure(pod) or self._complaint(pod)
            if failure is None and pod_status.was_deleted(pod):
                failure = pod_status.deletion_failure(await self._events())
            if failure is None and self._age(pod) > self._startup_timeout:
                failure = pod_status.startup_timeout(pod, self._startup_timeout, await self._events())
            if failure is not None:
                return failure
            self._describe(pod)
            if self._asked_to_stop():
                await self._end_pod()
                return None
            await asyncio.sleep(_POLL)

    def _age(self, pod: pod_status.Pod) -> float:
        # The pod's own time: a watch that starts over must not start the patience over.
        created = pod_status.seconds((pod.get("metadata") or {}).get("creationTimestamp"))
        return time.time() - (self._watched_since if created is None else min(created, self._watched_since))

    def _complaint(self, pod: pod_status.Pod) -> Failure | None:
        failure = pod_status.configuration_failure(pod)
        if failure is None:
            self._complained_at = None
            return None
        now = time.monotonic()
        if self._complained_at is None:
            self._complained_at = now
        return failure if now >= self._complained_at + _CONFIGURATION_PATIENCE else None

    def _describe(self, pod: pod_status.Pod) -> None:
        described = pod_status.describe(pod)
        if described != self._described:
            self._described = described
            self._say(f"The pod is {described}")

    # --- the log, and the end ---

    async def _follow(self) -> Failure | None:
        """Read the log until the container has ended."""
        quiet_since = time.monotonic()
        rereads = 0
        # A trial that has just started may still be setting up how it takes a signal.
        self._stop_at = time.monotonic() + _STOP_INTERVAL
        while True:
            if await self._read_log():
                quiet_since = time.monotonic()
            if self._is_told_to_end():
                return None
            pod = await self._settled()
            if pod is None or (pod_status.was_deleted(pod) and time.monotonic() > quiet_since + _LOST):
                return pod_status.deletion_failure(await self._events())
            if self._has_ended(pod):
                rereads += 1
                if not self._is_log_broken or rereads > _REREADS:
                    return await self._verdict(pod)
            # The connection broke, or the container was restarted in place: the log starts over.
            self._splitter = LineSplitter()
            self._tail.clear()
            self._on_restart()

    async def _settled(self) -> pod_status.Pod | None:
        """Return the pod when it has ended or gone, or as it is: a log ends a moment before the status says so."""
        for _ in range(_SETTLING):
            pod = await self._look()
            if pod is None or self._has_ended(pod):
                return pod
            await asyncio.sleep(_POLL / 2)
        return pod

    def _has_ended(self, pod: pod_status.Pod) -> bool:
        return pod_status.is_over(pod) or pod_status.terminated(pod, self._max_restarts) is not None

    async def _read_log(self) -> bool:
        """Pass on the log until it ends, or the pod does; return whether there was any."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        reader = asyncio.create_task(self._fill(queue))
        look_at = time.monotonic() + _RARE_POLL
        heard = False
        try:
            while (chunk := await _next(queue, _STOP_INTERVAL)) is not None:
                heard = heard or bool(chunk)
                self._take(self._splitter.feed(chunk))
                if not chunk and self._splitter.is_redrawing:
                    self._take(self._splitter.redraws())
                if not self._is_told_to_end() and (self._asked_to_stop() or self._out_of_time()):
                    await self._end_pod()
                    look_at = time.monotonic() + self._grace
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + (_POLL if self._is_told_to_end() else _RARE_POLL)
                    pod = await self._look()
                    if pod is None or self._has_ended(pod):
                        break
            while not queue.empty():
                self._take(self._splitter.feed(queue.get_nowait() or b""))
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
        self._take(self._splitter.finish())
        if self._refusal is not None:
            raise self._refusal
        return heard

    async def _fill(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._is_log_broken = False
        try:
            async for chunk in self._client.log():
                if chunk:
                    await queue.put(chunk)
        except PodUnreachableError:
            self._is_log_broken = True
        except PodForbiddenError as error:
            self._refusal = error
        await queue.put(None)

    def _take(self, lines: list[str]) -> None:
        if self._is_told_to_end():
            # What the kubelet writes into the log of a container that is being removed.
            lines = [line for line in lines if not line.startswith(_KUBELET_SAYS)]
        if lines:
            self._tail.extend(lines)
            self._on_lines(lines)

    def _asked_to_stop(self) -> bool:
        now = time.monotonic()
        if now < self._stop_at:
            return False
        self._stop_at = now + _STOP_INTERVAL
        self._stopped = self._should_stop()
        return self._stopped is not None

    def _out_of_time(self) -> bool:
        started = self._started_at
        self._timed_out = self._timeout is not None and started is not None and time.time() > started + self._timeout
        return self._timed_out

    def _is_told_to_end(self) -> bool:
        return self._stopped is not None or self._timed_out

    def _forget_what_came_too_late(self) -> None:
        """A trial that ended by itself before it was told to has a result of its own; the API has whole seconds."""
        ended = pod_status.terminated(self._pod, self._max_restarts) or {}
        finished = pod_status.seconds(ended.get("finishedAt"))
        if ended.get("exitCode") == 0 and finished is not None and finished < int(self._told_at):
            self._stopped, self._timed_out = None, False

    async def _end_pod(self) -> None:
        self._told_at = time.time()
        self._say("Deleting the pod: " + (self._stopped or "its time is up"))
        await self._patiently(lambda: self._client.delete(self._grace))

    async def _verdict(self, pod: pod_status.Pod) -> Failure | None:
        ended = pod_status.terminated(pod, self._max_restarts) or {}
        failure = pod_status.pod_failure(pod) or pod_status.out_of_memory(pod) or pod_status.start_failure(pod)
        if failure is not None:
            return failure
        if pod_status.was_deleted(pod):
            return pod_status.deletion_failure(await self._events())
        return _failed_step(self._tail.last) if ended.get("exitCode") else None

    # --- asking ---

    async def _look(self) -> pod_status.Pod | None:
        pod: pod_status.Pod | None = await self._patiently(self._client.read)
        if pod is not None:
            self._pod = pod
            # Kept: the status of a pod that is being deleted may say again that its container is yet to be made.
            self._started_at = pod_status.started_at(pod) or self._started_at
        return pod

    async def _events(self) -> Sequence[dict[str, Any]]:
        with suppress(PodUnreachableError, PodForbiddenError):
            return await self._client.events()
        return ()

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again and again; a cluster that is being upgraded must not cost a trial of many hours."""
        deadline = time.monotonic() + _PATIENCE
        pause = _POLL
        while True:
            try:
                return await ask()
            except PodUnreachableError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 15.0)

    def _outcome(self, failure: Failure | None) -> Outcome:
        ended = pod_status.terminated(self._pod, self._max_restarts) or {}
        started = self._started_at
        finished = pod_status.seconds(ended.get("finishedAt")) or time.time()
        told = self._is_told_to_end()
        return Outcome(
            exit_code=None if told else ended.get("exitCode"),
            started=finished if started is None else started,
            ended=finished,
            log_tail=self._tail.shown(),
            timed_out=self._timed_out,
            stopped=self._stopped,
            failure=None if told else failure,
        )


def _failed_step(last: str) -> Failure | None:
    """Return that a build step in the container has failed, as the script around the command has said last."""
    if not last.startswith(SAYS + STEP_FAILED) or " failed (exit code " not in last:
        return None
    return Failure(FailureClass.USER_CODE, last.removeprefix(SAYS))


async def _next(queue: asyncio.Queue[bytes | None], seconds: float) -> bytes | None:
    """Return the next chunk, no bytes if none came in time, None at the end."""
    # A full queue would never let other tasks of the loop run.
    await asyncio.sleep(0)
    try:
        return await asyncio.wait_for(queue.get(), seconds)
    except TimeoutError:
        return b""
