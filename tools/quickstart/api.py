"""Airflow's REST API, as far as the quickstart needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

_TIMEOUT = 20


class ApiError(RuntimeError):
    """Airflow refused a request; the message says which and why."""


def _direct() -> OpenerDirector:
    return build_opener(ProxyHandler({}))  # 127.0.0.1 is never behind a proxy.


@dataclass
class Api:
    """A client of one Airflow that takes everybody for an administrator, as the quickstart's does.

    Attributes:
        address: Where it is, without a slash at the end.
    """

    address: str
    _opener: OpenerDirector = field(default_factory=_direct, repr=False)
    _token: str = field(default="", repr=False)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        """Send one request below ``/api/v2`` and return what its JSON answer holds.

        Raises:
            ApiError: Airflow answered with an error.
            OSError: There was no answer.
        """
        if not self._token:
            self._token = self._send("GET", "/auth/token")["access_token"]
        return self._send(method, f"/api/v2{path}?{urlencode(query)}", body)

    def health(self) -> dict[str, str]:
        """Return what each component is: healthy, unhealthy or starting; empty without an answer."""
        try:
            answer = self._send("GET", "/api/v2/monitor/health")
        except (ApiError, OSError, ValueError):
            return {}
        return {name: (part or {}).get("status") or "starting" for name, part in answer.items()}

    def dag_ids(self) -> set[str]:
        """Return the ids of the DAGs that Airflow knows and that are still there."""
        return {dag["dag_id"] for dag in self.call("GET", "/dags", exclude_stale="true", limit=100)["dags"]}

    def import_errors(self) -> list[tuple[str, str]]:
        """Return the files that are no good DAGs, with what is wrong."""
        errors = self.call("GET", "/importErrors")["import_errors"]
        return [(error["filename"], error["stack_trace"].strip()) for error in errors]

    def trigger(self, dag_id: str) -> str:
        """Start a run of a DAG, whether it is paused or not, and return its id."""
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False}, update_mask="is_paused")
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances"
        return list(self.call("GET", path, limit=100)["task_instances"])

    def result(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return what a task instance returned, or None when it returned nothing."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        try:
            return self.call("GET", path, map_index=map_index)["value"]
        except ApiError:
            return None

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data=data, headers=headers, method=method)  # noqa: S310 - http, ours
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            raise ApiError(f"{method} {path}: {error.code} {detail}") from error
