"""The command line of the quickstart: ``python -m tools.quickstart start|status|stop``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tools.quickstart.api import Api
from tools.quickstart.server import QuickstartError, Server
from tools.quickstart.sweeps import run_sweeps, wait_for_dags

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = ("digits_grid", "digits_random", "digits_hyperband")
DEFAULT_PORT = 8080
_INTERRUPTED = 130


def say(text: str) -> None:
    """Tell the person at the keyboard, at once."""
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start Airflow and run the example sweeps")
    start.add_argument("--port", type=int, help=f"default: {DEFAULT_PORT}")
    start.add_argument("--no-sweeps", action="store_true", help="only start Airflow")
    commands.add_parser("status", help="say whether it is running")
    commands.add_parser("stop", help="end what start started")
    chosen = parser.parse_args(arguments)
    server = Server(ROOT / ".quickstart", ROOT / "dags")
    try:
        if chosen.command == "start":
            return _start(server, chosen.port, with_sweeps=not chosen.no_sweeps)
        return _stop(server) if chosen.command == "stop" else _status(server)
    except QuickstartError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        running = server.running()
        left = f"Airflow goes on at {running.address}; `make stop` ends it." if running else "Nothing runs."
        print(f"\nInterrupted. {left}", file=sys.stderr)
        return _INTERRUPTED


def _start(server: Server, port: int | None, *, with_sweeps: bool) -> int:
    began = time.monotonic()
    before = server.running()
    running = server.start(port or DEFAULT_PORT, say)
    found = before is not None and before.mark == running.mark
    say(f"Airflow {'is' if found else 'was started and is'} running at {running.address}")
    if port and port != running.port:
        say(f"(PORT={port} changes nothing while it runs; `make stop` first)")
    fine = True
    if with_sweeps:
        api = Api(running.address)
        wait_for_dags(api, SWEEPS, say)
        fine = run_sweeps(api, [server.dags / f"{name}.yaml" for name in SWEEPS], say)
    say(f"\nAfter {time.monotonic() - began:.0f} s. Airflow goes on at {running.address} (no password).")
    say("Drop a sweep of your own into dags/, or `make stop` to end it.")
    return 0 if fine else 1


def _status(server: Server) -> int:
    running = server.running()
    if running is None:
        say("Not running. `make quickstart` starts it.")
        return 1
    say(f"Running at {running.address}" + (f", without {', '.join(running.dead)}" if running.dead else ""))
    for process in running.processes:
        say(f"  {process.name:14} process {process.pid}, log {server.log(process.name)}")
    return 0


def _stop(server: Server) -> int:
    ended = server.stop()
    say(f"Stopped: {', '.join(ended)}." if ended else "Nothing is running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
