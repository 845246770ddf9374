"""One pod of a trial, through Airflow's asynchronous hook: what ``runners.pod_watch`` asks of Kubernetes."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from airflow_hptuning.runners.pod_watch import PodForbiddenError, PodUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow_hptuning.runners.pod_status import Pod

CHUNK: Final = 64 * 1024
"""Bytes of the log that are read at once."""

_NOT_FOUND: Final = 404
_REFUSED: Final = frozenset({401, 403})
_REFUSALS: Final = 3
"""A token that has just run out is renewed by the next try; a refusal is final only after a few."""

_CONNECT: Final = 10
_ANSWER: Final = 30


class AsyncPod:
    """One pod. It keeps one connection until ``close``, and opens another one after an error.

    Args:
        name: Name of the pod.
        namespace: Its namespace.
        conn_id: Airflow connection to the cluster.
        container: Name of the trial's container.
    """

    def __init__(self, name: str, namespace: str, conn_id: str, container: str) -> None:
        self._name = name
        self._namespace = namespace
        self._conn_id = conn_id
        self._container = container
        self._refused = 0
        self._open: AsyncExitStack | None = None
        self._core: Any = None

    async def close(self) -> None:
        """Close the connection."""
        stack, self._open = self._open, None
        if stack is not None:
            await stack.aclose()

    async def read(self) -> Pod | None:
        """Return the pod as the API's JSON, or None if it is gone."""
        async with self._api() as (api, errors):
            try:
                pod = await api.read_namespaced_pod(self._name, self._namespace, _request_timeout=_ANSWER)
            except errors.ApiException as error:
                if error.status == _NOT_FOUND:
                    return None
                raise
            found: Pod = api.api_client.sanitize_for_serialization(pod)
            return found

    async def log(self) -> AsyncIterator[bytes]:
        """Yield the log from its beginning, as it is written, until the container ends."""
        from aiohttp import ClientTimeout

        async with self._api() as (api, _):
            answer = await api.read_namespaced_pod_log(
                self._name,
                self._namespace,
                container=self._container,
                follow=True,
                _preload_content=False,
                # A training may be silent for hours.
                _request_timeout=ClientTimeout(total=None, connect=_CONNECT),
            )
            try:
                async for chunk in answer.content.iter_chunked(CHUNK):
                    yield chunk
            finally:
                answer.close()

    async def delete(self, grace: float) -> None:
        """Delete the pod; fine if it is gone."""
        async with self._api() as (api, errors):
            try:
                await api.delete_namespaced_pod(
                    self._name, self._namespace, grace_period_seconds=max(0, round(grace)), _request_timeout=_ANSWER
                )
            except errors.ApiException as error:
                if error.status != _NOT_FOUND:
                    raise

    async def mark(self, labels: dict[str, str]) -> None:
        """Set labels of the pod; fine if it is gone."""
        async with self._api() as (api, errors):
            try:
                body = {"metadata": {"labels": labels}}
                await api.patch_namespaced_pod(self._name, self._namespace, body, _request_timeout=_ANSWER)
            except errors.ApiException as error:
                if error.status != _NOT_FOUND:
                    raise

    async def events(self) -> Sequence[dict[str, Any]]:
        """Return the events of the pod, oldest first."""
        async with self._api() as (api, _):
            found = await api.list_namespaced_event(
                self._namespace, field_selector=f"involvedObject.name={self._name}", _request_timeout=_ANSWER
            )
            events: list[dict[str, Any]] = api.api_client.sanitize_for_serialization(found.items)
            return sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[tuple[Any, Any]]:
        """Yield the API and its exceptions; turn what it raises into what the watch understands."""
        import aiohttp
        from kubernetes_asyncio import client

        try:
            yield await self._connected(), client
            self._refused = 0
        except client.ApiException as error:
            text = f"{error.status} {error.reason}: {_words(error.body)}"
            if error.status in _REFUSED:
                self._refused += 1
                await self.close()
                if self._refused >= _REFUSALS:
                    raise PodForbiddenError(text) from error
            raise PodUnreachableError(text) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self.close()
            raise PodUnreachableError(f"{type(error).__name__}: {error}") from error

    async def _connected(self) -> Any:
        if self._open is None:
            from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
            from kubernetes_asyncio import client

            stack = AsyncExitStack()
            # A new hook reads tokens and certificates anew, which may have been renewed since.
            connection = await stack.enter_async_context(AsyncKubernetesHook(conn_id=self._conn_id).get_conn())
            self._core = client.CoreV1Api(connection)
            self._open = stack
        return self._core


def _words(body: Any) -> str:
    return " ".join(str(body or "").split())[:300]
