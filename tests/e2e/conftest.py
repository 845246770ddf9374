"""One Airflow for all end-to-end tests of the local runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.live_airflow import LiveAirflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAirflow]:
    """A running Airflow with an empty dags folder; lists of more than 8 are split into batches."""
    home: Path = tmp_path_factory.mktemp("airflow")
    with LiveAirflow(home, {"AIRFLOW__CORE__MAX_MAP_LENGTH": "8"}) as airflow:
        yield airflow
