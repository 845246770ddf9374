"""Builds the wheel and checks that it holds what it must, and nothing else.

What is missing from a wheel is noticed by users, not by an editable installation.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_hptuning"
MUST = (
    f"{PACKAGE}/py.typed",
    f"{PACKAGE}/tracking.py",
    f"{PACKAGE}/trial_site/",
)
"""Files, and folders that must hold a file: what is not found by way of an import."""


def build(folder: Path) -> Path:
    """Build the wheel into a folder and return its path; needs no network.

    It is built from a copy: in place, setuptools would pack what earlier builds left in ``build/``.
    """
    source = folder / "source"
    shutil.copytree(ROOT / PACKAGE, source / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def expected() -> set[str]:
    """Return all files of the package that git would keep: Python, data and static files."""
    paths = (path for path in (ROOT / PACKAGE).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def entry_points() -> set[str]:
    """Return the entry points that setup.cfg promises, as ``group: name = object``."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    section = setup["options.entry_points"]
    return {f"{group}: {line}" for group, lines in section.items() for line in lines.split("\n") if line}


def problems(wheel: Path) -> list[str]:
    """Return what is wrong with the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        promised = next(name for name in names if name.endswith(".dist-info/entry_points.txt"))
        text = archive.read(promised).decode()
    found = [
        f"{must} is missing, which trials and type checkers need"
        for must in MUST
        if not any(name == must or (must.endswith("/") and name.startswith(must)) for name in names)
    ]
    found += [f"{name} is in the repository but not in the wheel" for name in sorted(expected() - names)]
    allowed = (f"{PACKAGE}/", f"{PACKAGE}-")
    found += [f"{name} does not belong there" for name in sorted(names) if not name.startswith(allowed)]
    written = ConfigParser()
    written.optionxform = str  # type: ignore[assignment, method-assign] # keep capitals, as the standard says
    written.read_string(text)
    kept = {f"{group}: {name} = {written[group][name]}" for group in written.sections() for name in written[group]}
    found += [f"entry point {point} is missing" for point in sorted(entry_points() - kept)]
    return found


def main() -> int:
    """Build and check; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        wrong = problems(wheel)
        size = wheel.stat().st_size // 1024
    for problem in wrong:
        print(f"{wheel.name}: {problem}", file=sys.stderr)
    if not wrong:
        print(f"{wheel.name}: complete, {size} KiB")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
