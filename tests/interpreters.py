"""Code in interpreters of its own, for what must not depend on the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def outputs_of(code: str, *arguments: str) -> set[str]:
    """Return what the code prints under different seeds of Python's hash function: one text, if it ignores them."""
    return {
        subprocess.run(
            [sys.executable, "-c", code, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "31")
    }
