"""Pools of sweeps: created or resized in the scheduler when a run starts.

A task that names a missing pool waits for ever, and neither tasks nor the parser may touch the database. The scheduler
may: this listener runs in it when a run goes from queued to running, in the transaction that says so, before any task
of the run is scheduled.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.models.dagrun import DagRun

log = logging.getLogger(__name__)

POOL_PREFIX = "hptuning__"
"""Pools of this name belong to one sweep (the DAG builder uses the same prefix; a test compares them)."""


@hookimpl
def on_dag_run_running(dag_run: DagRun, msg: str) -> None:
    """Make sure that the pools of a sweep's trials exist, and that its own has as many slots as it may run trials."""
    try:
        for name, slots in _wanted_pools(dag_run):
            _ensure_pool(dag_run, name, slots)
    except Exception:
        log.exception("airflow_hptuning could not prepare the pool of %s", dag_run.dag_id)


def _wanted_pools(dag_run: DagRun) -> Iterator[tuple[str, int]]:
    """Yield the pools that trial tasks of our DAGs name, with the slots they need; nothing for other DAGs."""
    dag = dag_run.dag
    if dag is None or "hptuning" not in (dag.tags or ()):
        return
    wanted = {
        task.pool: limit
        for task in dag.tasks
        if (limit := _concurrency(task)) is not None and task.pool != "default_pool"
    }
    yield from wanted.items()


def _concurrency(task: Any) -> int | None:
    """The concurrency of a trial task; None for other tasks."""
    limit = getattr(task, "max_active_tis_per_dagrun", None)
    return limit if isinstance(limit, int) else None


def _ensure_pool(dag_run: DagRun, name: str, slots: int) -> None:
    from airflow.models.pool import Pool
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        log.warning("No database session: the pool %s of %s may be missing", name, dag_run.dag_id)
        return
    pool = session.scalar(select(Pool).where(Pool.pool == name))
    if pool is None:
        description = f"Trials of the sweep {dag_run.dag_id}" if name.startswith(POOL_PREFIX) else "Trials of sweeps"
        values = {"pool": name, "slots": slots, "description": description, "include_deferred": True}
        session.execute(_insert_unless_there(session.get_bind().dialect.name, Pool.__table__).values(values))
        log.info("Created the pool %s with %d slots", name, slots)
    elif name.startswith(POOL_PREFIX) and (pool.slots, pool.include_deferred) != (slots, True):
        # A shared pool is its administrator's; the sweep's own follows the file.
        log.info("Resized the pool %s from %d to %d slots", name, pool.slots, slots)
        pool.slots = slots
        pool.include_deferred = True
    elif not pool.include_deferred:
        log.warning(
            "Pool %s does not include deferred tasks: trials of %s that the triggerer watches take none of its slots",
            name,
            dag_run.dag_id,
        )


def _insert_unless_there(dialect: str, table: Any) -> Any:
    """An INSERT that does nothing when another scheduler was faster.

    In the statement itself: within this transaction the scheduler allows no savepoint.
    """
    from sqlalchemy.dialects import mysql, postgresql, sqlite

    if dialect == "mysql":
        return mysql.insert(table).prefix_with("IGNORE")
    return (postgresql if dialect == "postgresql" else sqlite).insert(table).on_conflict_do_nothing()
