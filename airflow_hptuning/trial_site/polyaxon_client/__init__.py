"""Stands in for Polyaxon's client, so that scripts written for it report to airflow-hptuning.

An installed polyaxon-client wins, unless ``HPTUNING_POLYAXON_CLIENT`` is ``shim``.

Python 3.7 and later.
"""

from __future__ import annotations

import os

from _hptuning_site import give_way

if os.environ.get("HPTUNING_POLYAXON_CLIENT") == "shim" or not give_way(__name__):
    from polyaxon_client import settings

    __all__ = ["settings"]
