"""What holds the repository together: the files that describe it say what is so."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
from pathlib import Path

import pytest

from tools.check_wheel import entry_points
from tools.make_reference import pages

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LOCKS = ("build", "runtime", "dev")


def table_rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of all rows of the tables below a heading (or of the page, for an empty one)."""
    text = (DOCS / page).read_text()
    if heading:
        text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if not set(row[0]) <= set("-: ")]


def test_names_in(path: Path) -> set[str]:
    """Return the names of all test functions of a file, methods as ``Class::name``."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        names |= {f"{cls.name}::{node.name}" for node in cls.body if isinstance(node, ast.FunctionDef)}
    return names


test_names_in.__test__ = False  # type: ignore[attr-defined] # a helper, in spite of its name


def make(*arguments: str) -> str:
    """Run make and return what it prints."""
    done = subprocess.run(["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode()


def test_every_difference_from_polyaxon_names_a_test_that_exists() -> None:
    """A row of the table names a test, or says that the part is not built."""
    differences = [row for row in table_rows("polyaxon.md", "") if row[0] != "Polyaxon 0.x did"]
    assert len(differences) > 20
    for what, _, _, proof in differences:
        if proof == "not built":
            continue
        named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", proof)
        assert named, f"{what}: names no test but {proof!r}"
        for path, name in named:
            assert name in test_names_in(ROOT / path), f"{path}::{name} does not exist"


def test_layers_of_the_architecture_page_are_the_contract() -> None:
    """The page shows the same layers, from top to bottom, as import-linter enforces."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["importlinter:contract:layers"]["layers"].split("\n")
    contract = [set(re.split(r"\s*[|:]\s*", line.strip())) for line in lines if line.strip()]
    shown = [set(re.findall(r"`(\w+)`", row[1])) for row in table_rows("architecture.md", "Layers")[1:]]
    assert shown == contract


def test_glossary_has_the_words_of_the_design() -> None:
    """Each of Polyaxon's words is translated once."""
    words = [row[0] for row in table_rows("glossary.md", "")[1:]]
    assert len(words) == len(set(words))
    assert {"experiment group", "experiment", "matrix", "bracket iteration"} <= set(words)


def test_generated_pages_are_up_to_date() -> None:
    """The reference page and the JSON Schema are what the validating schema gives."""
    for path, text in pages().items():
        assert path.read_text() == text, f"{path.name}: run `make reference`"
    json.loads((DOCS / "polyaxonfile.schema.json").read_text())


def test_make_help_lists_the_targets() -> None:
    """``make help`` shows every target that has a description, and the README's two commands are among them."""
    makefile = (ROOT / "Makefile").read_text()
    declared = set(re.findall(r"^\.PHONY: ([\w-]+)$", makefile, re.MULTILINE))
    shown = set(re.findall(r"^  ([a-z0-9-]+) ", make("help"), re.MULTILINE))
    assert shown == declared
    assert {"quickstart", "test", "check", "test-e2e", "stop"} <= shown


@pytest.mark.parametrize("target", ["quickstart", "test", "check", "test-e2e"])
def test_make_can_run_each_target(target: str) -> None:
    """A dry run finds every rule that a target needs."""
    assert make("--dry-run", target)


def test_readme_names_commands_that_exist() -> None:
    """What the README tells to type are targets of the Makefile."""
    targets = set(re.findall(r"^  ([a-z0-9-]+) ", make("help"), re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", DOCS / "quickstart.md"):
        assert set(re.findall(r"[`$] ?make ([a-z][a-z0-9-]*)", page.read_text())) <= targets


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_every_package_and_name_no_host(name: str) -> None:
    """A lock holds ``package==version`` lines, and neither addresses nor paths."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    for line in pins:
        assert re.fullmatch(r"[a-z0-9._\[\],-]+==[\w.!+]+( ; .+)?", line), line
    assert "/" not in "".join(lines)


def test_locks_agree() -> None:
    """What the runtime lock and the build lock pin, the lock for development pins to the same versions."""

    def pins(name: str) -> set[str]:
        lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        # Where a package is needed depends on who needs it; its version does not.
        return {line.split(" ;")[0] for line in lines if "==" in line and not line.startswith("#")}

    assert pins("runtime") <= pins("dev")
    shared = {line.split("==")[0] for line in pins("dev")}
    assert {line for line in pins("build") if line.split("==")[0] in shared} <= pins("dev")


def test_locks_hold_what_the_package_asks_for() -> None:
    """Every direct dependency of setup.cfg is locked."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    def names(text: str) -> set[str]:
        lines = (line.strip() for line in text.split("\n"))
        found = (re.match(r"[\w-]+", line) for line in lines if line and not line.startswith("#"))
        return {match[0].lower() for match in found if match}

    def locked(name: str) -> set[str]:
        return names((ROOT / "requirements" / f"{name}.txt").read_text())

    assert names(setup["options"]["install_requires"]) <= locked("runtime")
    assert names(setup["options.extras_require"]["dev"]) <= locked("dev")


def test_wheel_check_knows_the_entry_points() -> None:
    """The check of the wheel looks for the four ways in which Airflow and people find the package."""
    groups = {point.split(":")[0] for point in entry_points()}
    assert groups == {"console_scripts", "apache_airflow_provider", "airflow.plugins", "airflow.policy"}


def test_licence_is_apache() -> None:
    """The licence that the metadata names is the one in the repository, in full."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_ci_runs_what_a_developer_runs() -> None:
    """CI calls make, stops a cluster that it started, and is a valid bash script."""
    script = (ROOT / ".ci" / "run").read_text()
    for line in ("make --no-print-directory check", "make --no-print-directory test\n", "test-e2e", "/down"):
        assert line in script
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    for tool in ("venv.sh", "lock.sh"):
        subprocess.run(["bash", "-n", ROOT / "tools" / tool], check=True)
