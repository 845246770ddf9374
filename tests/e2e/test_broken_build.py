"""A build that fails on a worker: no trial starts, and every task of the run says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.live_airflow import LiveAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

SWEEP = """
version: 1
kind: group
hptuning:
  matrix: {x: {uniform: [0, 1]}}
  hyperband: {max_iter: 4, eta: 2, resource: {name: steps, type: int}, metric: {name: loss, optimization: minimize}}
build: {image: python, build_steps: ["echo what went wrong; exit 3"]}
run: {cmd: "echo loss={{ x }}{{ steps }}"}
airflow: {runner: local}
"""


def test_nothing_is_left_to_fail_by_itself(live: LiveAirflow) -> None:
    """All that would come after the build is skipped, rungs and halvings too, and the summary has its last lines."""
    live.add("unbuilt.yaml", SWEEP)
    run_id, state = live.run("unbuilt")
    assert state == "failed"
    found = {task["task_id"]: task["state"] for task in live.task_instances("unbuilt", run_id)}
    assert (found.pop("build"), found.pop("collect")) == ("failed", "failed")
    assert set(found.values()) == {"skipped"}
    assert "what went wrong" in live.task_log("unbuilt", run_id, "collect")
    assert live.xcom("unbuilt", run_id, "collect")["stop"]["cause"] == "build"
