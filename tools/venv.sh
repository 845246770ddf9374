#!/usr/bin/env bash
# Makes or completes the virtual environment: tools/venv.sh {runtime|dev}. Called by the Makefile, which decides
# whether anything changed. Running it again is harmless.
#
#   PYTHON  the interpreter to make the environment from (default: the first of python3.11, python3 that will do)
#   VENV    where (default: .venv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kind=${1:?runtime or dev}
venv=${VENV:-.venv}
# Without byte code, importing Airflow takes longer than its own time-outs; some images forbid writing it.
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { echo "venv: $*" >&2; }
die() {
  say "$1"
  shift
  printf '      %s\n' "$@" >&2
  exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  die "needs Python 3.11 or newer; found: $(python3 --version 2>&1 || echo none)${PYTHON:+ and PYTHON=$PYTHON}." \
    "Debian 12: apt-get install python3 python3-venv" \
    "Elsewhere: make PYTHON=/path/to/python3.11 ..."
}

# Debian packs ensurepip apart from Python, and a bare machine does not have it.
need_ensurepip() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Debian's python3-venv, which holds ensurepip"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq install -y --no-install-recommends python3-venv >&2 ||
      { apt-get -qq update >&2 && apt-get -qq install -y --no-install-recommends python3-venv >&2; } || true
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
  fi
  die "$1 has no ensurepip, so it cannot make a virtual environment." \
    "Debian, Ubuntu: sudo apt-get install python3-venv" \
    "or choose another interpreter: make PYTHON=/path/to/python3.11 ..."
}

if ! new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  need_ensurepip "$python"
  say "making $venv with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi

say "installing the locked $kind packages (the first time takes a minute or two)"
"$venv/bin/python" -m pip install --quiet --requirement requirements/build.txt ||
  say "uv is not to be had from the package index; going on with pip, which is slower"
if "$venv/bin/uv" --version >/dev/null 2>&1; then
  install() { "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "$@"; }
else
  "$venv/bin/python" -m pip install --quiet "$(grep '^setuptools==' requirements/build.txt)"
  install() { "$venv/bin/python" -m pip install --quiet "$@"; }
fi
install --requirement "requirements/$kind.txt"
install --no-deps --no-build-isolation --editable .

say "compiling to byte code"
# A few packages carry files that are not meant for this Python: their errors are no concern of ours.
"$venv/bin/python" -m compileall -qq -j 2 "$venv/lib" >/dev/null 2>&1 || true
"$venv/bin/python" -m compileall -q airflow_hptuning
