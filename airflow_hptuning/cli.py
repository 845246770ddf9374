"""The command line: ``airflow-hptuning …`` without Airflow, ``airflow hptuning …`` within.

Exit codes: 0, 1 when a file has errors, 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from airflow_hptuning.errors import PolyaxonfileError, Problem, Severity
from airflow_hptuning.plan_report import describe
from airflow_hptuning.polyaxonfile.parser import find_problems, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_hptuning.polyaxonfile.spec import SweepSpec

SHOWN_ROWS = 20
"""How many configs the text of a plan lists."""

SHOWN_VALUES = 8
"""How many values of a parameter it lists."""


def validate(args: argparse.Namespace) -> int:
    """Print the problems of polyaxonfiles; return 1 if any file has an error."""
    problems = [problem for file in args.files for problem in find_problems(file)]
    if args.output == "json":
        _print_json([problem.to_json() for problem in problems])
    else:
        for problem in problems:
            print(f"{problem.severity.value}: {problem}")
        _print_verdict(args.files, problems)
    return int(any(problem.severity is Severity.ERROR for problem in problems))


def _print_verdict(files: Sequence[str], problems: Iterable[Problem]) -> None:
    broken = {problem.file for problem in problems if problem.severity is Severity.ERROR}
    for file in files:
        if str(file) not in broken:
            print(f"{file}: valid")


def show_plan(args: argparse.Namespace) -> int:
    """Print what a sweep would run, without running anything; return 1 if the file has errors."""
    try:
        spec = load_spec(args.file)
    except PolyaxonfileError as error:
        if args.output == "json":
            _print_json([problem.to_json() for problem in error.problems])
        else:
            print(error, file=sys.stderr)
        return 1
    if args.output == "json":
        _print_json(describe(spec, runner=args.runner))
    else:
        print("\n".join(plan_text(spec, runner=args.runner)))
    return 0


def plan_text(spec: SweepSpec, *, runner: str | None = None) -> list[str]:
    """Return the lines of a sweep's plan for people.

    Args:
        spec: The sweep.
        runner: Where trials run, unless the file says so.
    """
    shape = describe(spec, runner=runner)
    headline = (
        f"{shape['dag_id']}: {shape['search']} search, {shape['trials']} trials,"
        f" {shape['concurrency']} at once, {shape['tasks']} tasks in Airflow ({shape['runner']} runner)"
    )
    lines = [
        headline,
        "",
        *_table(
            ["parameter", "kind", "scale", "size", "values"],
            [
                [
                    parameter["name"],
                    parameter["kind"],
                    parameter["scale"],
                    "∞" if parameter["size"] is None else parameter["size"],
                    _values(parameter),
                ]
                for parameter in shape["parameters"]
            ],
        ),
    ]
    if shape["brackets"]:
        lines += ["", *_rung_table(shape)]
    if shape["search"] == "bo":
        initial = shape["trials"] - shape["iterations"]
        lines += ["", f"{initial} initial trials, then {shape['iterations']} suggested by the model"]
    if shape["configs"]:
        names = [parameter["name"] for parameter in shape["parameters"]]
        rows = [[number, *config.values()] for number, config in enumerate(shape["configs"][:SHOWN_ROWS])]
        lines += ["", *_table(["trial", *names], rows)]
        if shape["trials"] > SHOWN_ROWS:
            lines.append(f"… and {shape['trials'] - SHOWN_ROWS} more")
    if shape["warnings"]:
        lines += ["", *(f"warning: {warning}" for warning in shape["warnings"])]
    return lines


def _rung_table(shape: dict[str, Any]) -> list[str]:
    """The brackets with their rungs, what they cost in units of the resource, and how long they take."""
    rows: list[list[Any]] = []
    for bracket in shape["brackets"]:
        rungs = bracket["rungs"]
        rows += [[bracket["bracket"], rung["rung"], rung["trials"], rung["resource"]] for rung in rungs]
    cost = shape["cost"]
    saved = 1 - cost["side_by_side"] / cost["one_by_one"]
    work = (
        f"in units of the resource: {_text(cost['resource'])} for all trials,"
        f" {_text(cost['longest_chain'])} for the longest chain of rungs"
    )
    time = (
        f"at concurrency {shape['concurrency']} it takes {_text(cost['side_by_side'])}; less than"
        f" {_text(cost['bound'])} is impossible; brackets one after the other would take"
        f" {_text(cost['one_by_one'])}, so side by side saves {saved:.0%}"
    )
    return [*_table(["bracket", "rung", "trials", "resource"], rows), "", work, time]


def _values(parameter: dict[str, Any]) -> str:
    if parameter["values"] is not None:
        text = ", ".join(_text(value) for value in parameter["values"][:SHOWN_VALUES])
        return text if parameter["size"] <= SHOWN_VALUES else f"{text}, … {_text(parameter['values'][-1])}"
    if parameter["low"] is None or parameter["high"] is None:
        return "unbounded"
    return f"{_text(parameter['low'])} … {_text(parameter['high'])}"


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [list(header), *([_text(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def show_schema(_args: argparse.Namespace) -> int:
    """Print the JSON Schema of polyaxonfiles, for editors."""
    from airflow_hptuning.polyaxonfile.schema import json_schema

    _print_json(json_schema())
    return 0


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str))


_COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
    "validate": ("Check polyaxonfiles and print every problem with its place.", validate),
    "plan": ("Show what a polyaxonfile would run, without running anything.", show_plan),
    "schema": ("Print the JSON Schema of polyaxonfiles.", show_schema),
}


def _arguments(command: str) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """The arguments of a command, for argparse and for Airflow's own parser."""
    output: tuple[tuple[str, ...], dict[str, Any]] = (
        ("-o", "--output"),
        {"choices": ("text", "json"), "default": "text", "help": "text or json"},
    )
    runner: tuple[tuple[str, ...], dict[str, Any]] = (
        ("--runner",),
        {
            "choices": ("local", "kubernetes"),
            "default": os.environ.get("AIRFLOW__HPTUNING__DEFAULT_RUNNER"),
            "help": "where trials run, unless the file says so",
        },
    )
    return {
        "validate": [(("files",), {"nargs": "+", "help": "polyaxonfiles", "metavar": "FILE"}), output],
        "plan": [(("file",), {"help": "a polyaxonfile", "metavar": "FILE"}), runner, output],
        "schema": [],
    }[command]


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``airflow-hptuning``."""
    from airflow_hptuning import __version__

    top = argparse.ArgumentParser("airflow-hptuning", description="Hyperparameter sweeps from polyaxonfiles.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, action) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        for flags, options in _arguments(name):
            command.add_argument(*flags, **options)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``airflow-hptuning``; return the exit code."""
    args = parser().parse_args(argv)
    action: Callable[[argparse.Namespace], int] = args.action
    try:
        status = action(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this, such as `head`, has seen enough. Python flushes once more at its end, to nowhere then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def get_cli_commands() -> list[Any]:
    """Return the command group ``airflow hptuning`` (Airflow calls this)."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    def run(action: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], None]:
        # Airflow ignores what a command returns.
        return lambda args: sys.exit(action(args))

    return [
        GroupCommand(
            name="hptuning",
            help="Hyperparameter sweeps from polyaxonfiles",
            subcommands=[
                ActionCommand(
                    name=name,
                    help=text,
                    func=run(action),
                    args=tuple(
                        Arg(flags, **options)  # type: ignore[no-untyped-call]
                        for flags, options in _arguments(name)
                    ),
                )
                for name, (text, action) in _COMMANDS.items()
            ],
        )
    ]
