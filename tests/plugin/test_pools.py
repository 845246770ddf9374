"""The pools of sweeps: which are wanted, and the statement that makes them."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch

import pytest
import sqlalchemy
from airflow.models.pool import Pool
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from sqlalchemy.orm import Session

from airflow_hptuning import build_dag
from airflow_hptuning.plugin import pools

SWEEP = """
version: 1
kind: group
hptuning: {concurrency: 3, matrix: {x: {values: [1, 2]}}}
run: {cmd: "echo loss={{ x }}"}
airflow: {dag_id: mine, metrics: {objective: {name: loss, optimization: minimize}}}
"""


def run_of(dag: DAG) -> SimpleNamespace:
    """A DAG run as the scheduler has it: its DAG comes from the serialised form."""
    return SimpleNamespace(dag=DagSerialization.from_dict(DagSerialization.to_dict(dag)), dag_id=dag.dag_id)


def test_a_sweep_wants_its_own_pool_with_its_concurrency() -> None:
    """As many slots as trials may run at once."""
    assert list(pools._wanted_pools(run_of(build_dag(SWEEP)))) == [("hptuning__mine", 3)]  # type: ignore[arg-type]


def test_a_named_pool_is_wanted_too() -> None:
    """It is made if it is missing; its size is its administrator's."""
    dag = build_dag(SWEEP.replace("dag_id: mine", "pool: gpu"))
    assert list(pools._wanted_pools(run_of(dag))) == [("gpu", 3)]  # type: ignore[arg-type]


def test_other_dags_are_left_alone() -> None:
    """Whatever pools they name."""
    assert list(pools._wanted_pools(run_of(DAG("other", schedule=None)))) == []  # type: ignore[arg-type]


def test_a_shared_pool_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Its administrator made it; where it does not count deferred tasks, the log says what that means."""
    engine = sqlalchemy.create_engine("sqlite://")
    Pool.__table__.create(engine)
    with Session(engine) as session:
        session.add(Pool(pool="gpu", slots=9, description="", include_deferred=False))
        run = SimpleNamespace(dag_id="mine")
        with patch.object(sqlalchemy.orm, "object_session", lambda _: session):
            pools._ensure_pool(run, "gpu", 3)  # type: ignore[arg-type]
        pool = session.scalars(sqlalchemy.select(Pool)).one()
        assert (pool.slots, pool.include_deferred) == (9, False)
    assert "does not include deferred tasks: trials of mine" in caplog.text


def test_two_schedulers_may_make_the_same_pool() -> None:
    """The second statement does nothing, and raises nothing."""
    engine = sqlalchemy.create_engine("sqlite://")
    Pool.__table__.create(engine)
    values = {"pool": "p", "slots": 2, "description": "", "include_deferred": True}
    with engine.begin() as connection:
        for slots in (2, 5):
            statement = pools._insert_unless_there("sqlite", Pool.__table__).values(values | {"slots": slots})
            connection.execute(statement)
        assert connection.execute(sqlalchemy.text("SELECT pool, slots FROM slot_pool")).all() == [("p", 2)]


@pytest.mark.parametrize(
    ("dialect", "words"), [("postgresql", "ON CONFLICT DO NOTHING"), ("mysql", "INSERT IGNORE INTO")]
)
def test_statements_of_other_databases(dialect: str, words: str) -> None:
    """Each database has its own words for it."""
    statement = pools._insert_unless_there(dialect, Pool.__table__)
    engine_dialect = sqlalchemy.dialects.registry.load(dialect)
    assert words in str(statement.compile(dialect=engine_dialect()))
