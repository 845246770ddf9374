#!/usr/bin/env bash
# Writes requirements/{build,runtime,dev}.txt anew: the newest versions that setup.cfg and the .in files admit
# (with arguments: passed on to uv, such as `--upgrade-package numpy`; without: everything is upgraded).
# All three agree with each other. No index, host or path of this machine is written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=${UV:-.venv/bin/uv}
[ $# -gt 0 ] || set -- --upgrade
compile() { # output, then inputs
  local output=requirements/$1
  shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --no-annotate \
    --custom-compile-command 'make lock' "${upgrade[@]}" --output-file "$output" "$@"
}
upgrade=("$@")
compile build.txt requirements/build.in
compile runtime.txt setup.cfg
compile dev.txt --constraint requirements/runtime.txt --constraint requirements/build.txt \
  --extra dev setup.cfg requirements/dev.in
