"""The settings that scripts ask for: whether they run under Polyaxon. Inside a trial they should think so."""

from __future__ import annotations

import os

IN_CLUSTER = IS_MANAGED = bool(os.environ.get("HPTUNING_TRIAL_ID"))
NO_OP = False
