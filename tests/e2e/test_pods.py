"""Trials as pods: a real Airflow with a real Kubernetes, and the rights of the limited service account only."""

from __future__ import annotations

import base64
import json
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tests.live_airflow import eventually, most_at_once
from tests.live_cluster import wait_until_gone

if TYPE_CHECKING:
    from tests.live_airflow import LiveAirflow
    from tests.live_cluster import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SWEEP = """
version: 1
kind: group
hptuning:
  concurrency: {concurrency}
  seed: 3
  {search}
  matrix:
    {matrix}
build: {{image: "python:3.11"}}
run:
  cmd: {cmd}
airflow:
  runner: {runner}
  kubernetes: {{namespace: hptuning, startup_timeout: 60s}}
  metrics: {{objective: {{name: loss, optimization: minimize}}}}
  trial: {{retries: 0, timeout: {timeout}}}
"""


def script(code: str) -> str:
    """Return a command that runs a piece of Python, free of characters that a shell or a YAML file would read."""
    text = base64.b64encode(textwrap.dedent(code).encode()).decode()
    return f'python3 -c \'exec(__import__("base64").b64decode("{text}"))\''


TRAIN = script("""
    import time
    from airflow_hptuning.tracking import get_params, log_metrics

    for i in range(5):
        log_metrics(step=i, loss=get_params()["x"] / (i + 1))
        time.sleep(0.3)
""")

LONG = script(r"""
    import sys

    write = sys.stdout.buffer.write
    for i in range(100_000):
        write(b"epoch %d loss=%.1f\n" % (i, 100_000 - i))
    write(b"\xff\xfe\x00\x1b[31m noise\n")
    write(b'{"step": 100000, "loss": 0.25}')
""")

TEXT = script("""
    import json, os, sys

    text = json.loads(os.environ["POLYAXON_PARAMS"])["text"]
    print(json.dumps(text))
    print("loss=" + str(float(sys.argv[1:] == [text])))
""")


def sweep(
    *,
    cmd: str,
    matrix: str = "x: {uniform: [0, 1]}",
    search: str = "random_search: {n_experiments: 12}",
    concurrency: int = 3,
    runner: str = "kubernetes",
    timeout: str = "300s",
) -> str:
    """Return the text of a polyaxonfile; the command is one line."""
    return SWEEP.format(
        cmd=json.dumps(cmd), matrix=matrix, search=search, concurrency=concurrency, runner=runner, timeout=timeout
    )


def what_counts(records: list[dict[str, Any]]) -> list[Any]:
    """Return of records what does not depend on where they ran."""
    return [(r["trial"], r["config_id"], r["state"], r["metrics"], r["best"], r["curve"]) for r in records]


def states(live: LiveAirflow, dag_id: str, run_id: str) -> set[str]:
    """Return the states of all tasks of a run."""
    return {instance["state"] for instance in live.task_instances(dag_id, run_id)}


@pytest.mark.parametrize(
    ("name", "search", "matrix"),
    [
        ("pods_random", "random_search: {n_experiments: 12}", "x: {uniform: [0, 1]}"),
        ("pods_grid", "grid_search: {}", "x: {linspace: [0.1, 1.2, 12]}"),
    ],
)
def test_pods_give_what_processes_give(
    live_pods: LiveAirflow, cluster: Cluster, name: str, search: str, matrix: str
) -> None:
    """12 trials, three pods at a time, one pod each, the same results as on the local runner; no pod is left."""
    live_pods.add(f"{name}.yaml", sweep(cmd=TRAIN, search=search, matrix=matrix))
    live_pods.add(f"{name}_local.yaml", sweep(cmd=TRAIN, search=search, matrix=matrix, runner="local"))
    with cluster.record(name) as history:
        run_id, state = live_pods.run(name)
        assert state == "success"
        assert not cluster.pods(name)
    records = live_pods.records(name, run_id)
    assert len(records) == 12
    assert {trial: len(pods) for trial, pods in history.by_trial().items()} == dict.fromkeys(range(12), 1)
    assert history.most_running <= 3
    assert most_at_once([(r["started"], r["ended"]) for r in records]) <= 3
    assert states(live_pods, name, run_id) == {"success"}
    local_id, state = live_pods.run(f"{name}_local")
    assert state == "success"
    assert what_counts(records) == what_counts(live_pods.records(f"{name}_local", local_id))
    labels = {i["map_index"]: i["rendered_map_index"] for i in live_pods.task_instances(name, run_id)}
    assert labels[3].startswith("#3 x=")


FAILURES = {
    "oom": ("oom", "python3 -c 'x = bytearray(10 ** 9)'", "limit of 100Mi"),
    "exit": ("user_code", "echo about to fail; exit 3", "exit code 3"),
    "silent": ("no_metric", "echo nothing to see", "never reported loss"),
    "slow": ("timeout", "echo started; sleep 600", "its time was up"),
    "deleted": ("infrastructure", "echo started; sleep 600", "deleted by somebody"),
}


def test_failures_are_told_apart(live_pods: LiveAirflow, cluster: Cluster) -> None:
    """Out of memory, exit code, no metric, time limit, deleted; and images and nodes that are not to be had."""
    cases = " ".join(f"{name}) {command} ;;" for name, (_, command, _) in FAILURES.items())
    text = sweep(
        cmd=f"case {{{{ case }}}} in {cases} esac",
        matrix=f"case: {{values: [{', '.join(FAILURES)}]}}",
        search="grid_search: {}",
        concurrency=5,
        timeout="15s",
    )
    limits = "environment: {resources: {memory: {limits: 100}}}\n"
    live_pods.add("pods_fail.yaml", text + limits)
    one = {"matrix": "x: {values: [1]}", "search": "grid_search: {}", "cmd": TRAIN}
    live_pods.add("pods_image.yaml", sweep(**one).replace("python:3.11", "no-such-image:1"))
    live_pods.add("pods_node.yaml", sweep(**one) + "environment: {resources: {cpu: {requests: 1000}}}\n")
    live_pods.add("pods_secret.yaml", sweep(**one) + "environment: {secret_refs: [missing]}\n")
    live_pods.add("pods_invalid.yaml", sweep(**one) + "environment: {node_selector: {'a b': c}}\n")
    others = {
        "pods_image": ("image", "no-such-image:1"),
        "pods_node": ("unschedulable", "Insufficient cpu"),
        "pods_secret": ("infrastructure", 'secret "missing" not found'),
        "pods_invalid": ("user_code", "422"),
    }
    for name in ("pods_fail", *others):
        live_pods.wait_for_dag(name)
    runs = {name: live_pods.trigger(name) for name in ("pods_fail", *others)}
    doomed = list(FAILURES).index("deleted")

    def running() -> Any:
        pod = cluster.trial_pod("pods_fail", doomed)
        return pod if pod and pod.status.phase == "Running" else None

    cluster.delete(eventually(running, what="the pod to delete").metadata.name)
    for name, run_id in runs.items():
        assert live_pods.wait_for_run(name, run_id) == "failed", "a run without a result fails"
        assert not cluster.pods(name)
    records = live_pods.records("pods_fail", runs["pods_fail"])
    for record, (kind, _, words) in zip(records, FAILURES.values(), strict=True):
        assert (record["state"], record["failure"]["class"]) == ("failed", kind)
        assert words in record["failure"]["reason"]
        log = live_pods.task_log("pods_fail", runs["pods_fail"], "trial", record["trial"])
        assert f"({kind})" in log, "the task's error names the class"
    assert "about to fail" in records[1]["failure"]["log_tail"]
    for name, (kind, words) in others.items():
        (record,) = live_pods.records(name, runs[name])
        assert record["failure"]["class"] == kind, record
        assert words in record["failure"]["reason"]


def test_long_and_dirty_logs(live_pods: LiveAirflow) -> None:
    """100,000 lines, bytes that are no text, a metric in the very last line without its end."""
    live_pods.add("pods_long.yaml", sweep(cmd=LONG, matrix="x: {values: [1]}", search="grid_search: {}"))
    run_id, state = live_pods.run("pods_long")
    assert state == "success"
    (record,) = live_pods.records("pods_long", run_id)
    assert record["metrics"]["loss"] == 0.25
    assert record["best"]["loss"] == 0.25
    curve = record["curve"]["loss"]
    assert curve[-1] == [100000.0, 0.25]
    assert len(curve) <= 200


def test_values_reach_the_script_unchanged(live_pods: LiveAirflow) -> None:
    """Quotes, blanks, dollars, newlines, braces: in POLYAXON_PARAMS, and quoted in the command."""
    nasty = 'it\'s "quoted" $HOME $(id) `id` {{ x }} 100% $$ \\n\nend'
    cmd = TEXT + " {{ text | quote }}"
    live_pods.add(
        "pods_text.yaml", sweep(cmd=cmd, matrix=f"text: {{values: [{json.dumps(nasty)}]}}", search="grid_search: {}")
    )
    run_id, state = live_pods.run("pods_text")
    assert state == "success"
    (record,) = live_pods.records("pods_text", run_id)
    assert record["metrics"]["loss"] == 1.0
    assert record["params"]["text"] == nasty
    assert json.dumps(nasty) in live_pods.task_log("pods_text", run_id, "trial", 0)


def test_killed_tasks_take_their_pods_along(live_pods: LiveAirflow, cluster: Cluster) -> None:
    """A trial that is cleared starts anew; a run that is marked failed ends its pods, and reaps."""
    live_pods.add(
        "pods_kill.yaml", sweep(cmd="echo loss=1; sleep 600", matrix="x: {values: [1, 2]}", search="grid_search: {}")
    )
    live_pods.wait_for_dag("pods_kill")
    run_id = live_pods.trigger("pods_kill")

    def running() -> list[str]:
        names = [pod.metadata.name for pod in cluster.pods("pods_kill") if pod.status.phase == "Running"]
        return names if len(names) == 2 else []

    first = eventually(running, what="two running pods")
    eventually(lambda: "loss=1" in live_pods.task_log("pods_kill", run_id, "trial", 0), what="the log of a running pod")
    live_pods.clear("pods_kill", run_id, [["trial", 0]])
    second = eventually(lambda: set(running()) - set(first), what="another pod")
    assert len(second) == 1, "only the cleared trial has a new pod"
    live_pods.api("PATCH", f"dags/pods_kill/dagRuns/{run_id.replace('+', '%2B')}", {"state": "failed"})
    wait_until_gone(cluster, "pods_kill", seconds=60)
    eventually(lambda: states(live_pods, "pods_kill", run_id) <= {"failed", "skipped", "success"}, what="the end")


def test_without_the_triggerer(live_pods: LiveAirflow, cluster: Cluster) -> None:
    """``deferrable: false`` watches the pods in the workers, with the same results."""
    text = sweep(cmd=TRAIN, search="random_search: {n_experiments: 3}")
    live_pods.add("pods_sync.yaml", text.replace("namespace: hptuning,", "namespace: hptuning, deferrable: false,"))
    run_id, state = live_pods.run("pods_sync")
    assert state == "success"
    records = live_pods.records("pods_sync", run_id)
    assert [record["state"] for record in records] == ["succeeded"] * 3
    assert all(len(record["curve"]["loss"]) == 5 for record in records)
    assert not cluster.pods("pods_sync")
