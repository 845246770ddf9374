"""What the container of a trial runs: a POSIX shell script around the user's command.

The image belongs to the user, so nothing of ours is in it: the script comes with the pod, needs no more than
``/bin/sh``, and does what the local runner does outside of the trial's process:

- it makes the outputs directory, and says so when a trial that should continue finds no checkpoint;
- it unpacks ``trial_site``, where ``airflow_hptuning.tracking`` and ``polyaxon_client`` resolve, if there is a Python;
- it runs the build steps one after the other (``build_steps`` in line), and ends when one fails;
- it runs the command by bash, or by sh where there is no bash, and exits with its status;
- it hands SIGTERM on: a container's first process gets it, and the kernel keeps it from those that do not handle it.
"""

from __future__ import annotations

import base64
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SAYS: Final = "hptuning: "
"""How the lines begin that the script itself prints."""

NO_CHECKPOINT: Final = "no checkpoint in the outputs directory: the trial starts from scratch"
"""What it says when a trial should continue from a checkpoint and there is none."""

STEP_FAILED: Final = "build step "
"""How the line begins that says which build step has failed."""

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_DATE: Final = (2026, 1, 1, 0, 0, 0)
"""Of all files in the archive, so that the same files give the same pod."""

_UNPACK: Final = (
    "import base64,io,sys,tempfile,zipfile;"
    "d=tempfile.mkdtemp(prefix='hptuning-');"
    "zipfile.ZipFile(io.BytesIO(base64.b64decode(sys.argv[1]))).extractall(d);"
    "print(d)"
)

_SCRIPT: Final = f"""\
command=$1; site=$2; resume=$3; shift 3
say() {{ echo "{SAYS}$*"; }}
shell=/bin/bash
[ -x "$shell" ] || shell=$(command -v bash) || shell=/bin/sh
case ${{HPTUNING_OUTPUTS_PATH:-}} in
  "" | *://*) ;;
  *)
    if [ "$resume" = yes ] && [ -z "$(ls -A "$HPTUNING_OUTPUTS_PATH" 2>/dev/null)" ]; then
      say "{NO_CHECKPOINT}"
    fi
    mkdir -p "$HPTUNING_OUTPUTS_PATH" || say "the outputs directory cannot be made: $HPTUNING_OUTPUTS_PATH" ;;
esac
for python in python3 python; do
  command -v "$python" >/dev/null 2>&1 || continue
  if folder=$("$python" -c "{_UNPACK}" "$site" 2>/dev/null); then
    export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}$folder"
  else
    say "airflow_hptuning.tracking is not there: no temporary directory can be written"
  fi
  break
done
trap 'trap "" TERM; kill -TERM 0' TERM
run() {{
  "$shell" -c "$1" &
  child=$!
  wait "$child"; code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  # A signal may have ended the last wait and hidden the status, which a shell keeps until somebody has waited for it.
  wait "$child" 2>/dev/null; again=$?
  [ "$again" = 127 ] || code=$again
  return "$code"
}}
total=$#; number=0
for step do
  number=$((number + 1))
  say "build step $number of $total: $step"
  run "$step" || {{ code=$?; say "{STEP_FAILED}$number of $total failed (exit code $code): $step"; exit "$code"; }}
done
run "$command"
"""


def container_command(command: str, *, steps: Sequence[str] = (), resume: bool = False) -> list[str]:
    """Return the command of a trial's container.

    Args:
        command: The user's command, one shell script.
        steps: Build steps to run before it.
        resume: Whether a checkpoint is expected in the outputs directory.
    """
    return ["/bin/sh", "-c", _SCRIPT, "hptuning", command, _site(), "yes" if resume else "no", *steps]


@cache
def _site() -> str:
    """The archive of ``trial_site``, with ``tracking`` where that looks for it first, as base64."""
    site = _PACKAGE / "trial_site"
    files = {str(path.relative_to(site)): path for path in sorted(site.rglob("*.py"))}
    files["airflow_hptuning/tracking.py"] = _PACKAGE / "tracking.py"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _DATE), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return base64.b64encode(target.getvalue()).decode()
