"""Makes ``airflow_hptuning.tracking`` importable in interpreters where airflow-hptuning is not installed.

An installed airflow-hptuning wins. Otherwise this is a package whose modules are looked for in this directory
(where a copy of ``tracking.py`` may lie, in a container) and then in the real package, of which this folder
is a part.

Python 3.7 and later.
"""

from __future__ import annotations

import os

from _hptuning_site import SITE, give_way

if not give_way(__name__):
    __path__ = [os.path.join(SITE, "airflow_hptuning"), os.path.dirname(SITE)]
