"""What every runner of trials must do, as tests: subclass ``RunnerConformance`` and provide ``make_runner``."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from airflow_hptuning.trials import FailureClass, TrialCommand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_hptuning.trials import Outcome


class Runner(Protocol):
    """What runs a trial."""

    def run(
        self,
        command: TrialCommand,
        *,
        on_line: Callable[[str], None],
        should_stop: Callable[[], str | None] | None = None,
    ) -> Outcome:
        """Run a trial to its end."""

    def kill(self) -> None:
        """End the trial that runs."""


class MakeRunner(Protocol):
    """What makes a runner with the settings that all runners know."""

    def __call__(self, *, env: dict[str, str] | None = None, timeout: float | None = None, grace: float = 5) -> Runner:
        """Make a runner."""


def command(script: str, *, outputs: Path | str = "", **env: str) -> TrialCommand:
    """Make the command of a trial."""
    return TrialCommand(script, env, str(outputs))


class Lines(list[str]):
    """Collects lines, and calls back at one of them."""

    def __init__(self, at: str = "", then: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self._at = at
        self._then = then

    def __call__(self, line: str) -> None:
        """Take in a line."""
        self.append(line)
        if self._then is not None and line == self._at:
            self._then()


def check_killed(outcome: Outcome) -> None:
    """A trial that was killed with its task failed without its own fault, so that it is tried again."""
    assert outcome.stopped is None
    assert outcome.failure is not None
    assert outcome.failure.failure_class is FailureClass.INFRASTRUCTURE


class RunnerConformance:
    """The tests; each speaks of one trial in a POSIX shell."""

    @pytest.fixture
    def make_runner(self) -> MakeRunner:
        """Return what makes the runner under test; subclasses provide it."""
        raise NotImplementedError

    def test_lines_in_order(self, make_runner: MakeRunner) -> None:
        """Standard output and error arrive as lines in the order of writing."""
        lines = Lines()
        outcome = make_runner().run(command("echo one; echo two >&2; echo; echo four"), on_line=lines)
        assert lines == ["one", "two", "", "four"]
        assert outcome.exit_code == 0
        assert outcome.log_tail == ("one", "two", "", "four")
        assert (outcome.timed_out, outcome.stopped, outcome.failure) == (False, None, None)

    def test_times(self, make_runner: MakeRunner) -> None:
        """The outcome says when the trial ran."""
        before = time.time()
        outcome = make_runner().run(command("sleep 0.2"), on_line=Lines())
        assert before <= outcome.started <= outcome.ended - 0.2 <= time.time()

    @pytest.mark.parametrize("code", [1, 42, 255])
    def test_exit_code(self, make_runner: MakeRunner, code: int) -> None:
        """The exit code of the script is the trial's."""
        assert make_runner().run(command(f"exit {code}"), on_line=Lines()).exit_code == code

    def test_last_line_without_end(self, make_runner: MakeRunner) -> None:
        """A last line without a newline counts."""
        lines = Lines()
        make_runner().run(command("printf 'a\\nb'"), on_line=lines)
        assert lines == ["a", "b"]

    def test_bytes_that_are_no_text(self, make_runner: MakeRunner) -> None:
        """Bytes that cannot be decoded are replaced and take no other line with them."""
        lines = Lines()
        make_runner().run(command("printf 'a\\377b\\nä\\n'"), on_line=lines)
        assert lines == ["a\ufffdb", "ä"]

    def test_environment_of_the_trial(self, make_runner: MakeRunner) -> None:
        """The trial's variables are set and win over the runner's; nothing in them is interpreted."""
        lines = Lines()
        runner = make_runner(env={"A": "runner", "B": "runner"})
        runner.run(command('printf "%s\\n" "$A" "$B"', A="$(trial) `x` \"'"), on_line=lines)
        assert lines == ["$(trial) `x` \"'", "runner"]

    def test_no_standard_input(self, make_runner: MakeRunner) -> None:
        """A trial that reads its input finds it empty instead of waiting."""
        lines = Lines()
        assert make_runner().run(command("cat; echo end"), on_line=lines).exit_code == 0
        assert lines == ["end"]

    def test_lines_arrive_while_the_trial_runs(self, make_runner: MakeRunner, tmp_path: Path) -> None:
        """A line is seen before the trial ends: this one ends only after its line was seen."""
        seen = tmp_path / "seen"
        lines = Lines("here", seen.touch)
        script = f"echo here; until test -e '{seen}'; do sleep 0.05; done; echo end"
        make_runner().run(command(script), on_line=lines)
        assert lines == ["here", "end"]

    def test_timeout(self, make_runner: MakeRunner) -> None:
        """A trial whose time is up is ended, and its lines are kept."""
        outcome = make_runner(timeout=0.5).run(command("echo before; sleep 60"), on_line=Lines())
        assert outcome.timed_out
        assert outcome.stopped is None
        assert outcome.log_tail == ("before",)

    def test_stop(self, make_runner: MakeRunner) -> None:
        """A trial is ended when it should stop, and the reason is kept."""
        outcome = make_runner().run(command("sleep 60"), on_line=Lines(), should_stop=lambda: "goal reached")
        assert outcome.stopped == "goal reached"
        assert not outcome.timed_out

    def test_a_trial_may_say_goodbye(self, make_runner: MakeRunner) -> None:
        """A trial that is stopped gets a signal first, and what it prints then is seen."""
        lines = Lines()
        script = "trap 'echo saving; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        outcome = make_runner().run(command(script), on_line=lines, should_stop=lambda: "goal")
        # The shell may say in between that the signal has ended its sleep.
        assert (lines[0], lines[-1]) == ("ready", "saving")
        assert outcome.stopped == "goal"

    def test_a_trial_that_ignores_the_signal_is_killed(self, make_runner: MakeRunner) -> None:
        """Nothing survives the grace period."""
        script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
        outcome = make_runner(grace=0.5).run(command(script), on_line=Lines(), should_stop=lambda: "goal")
        assert outcome.stopped == "goal"
        assert outcome.exit_code != 0

    def test_kill_from_a_callback(self, make_runner: MakeRunner) -> None:
        """A trial can be killed from within, as a signal handler does."""
        runner = make_runner()
        check_killed(runner.run(command("echo here; sleep 60"), on_line=Lines("here", runner.kill)))

    def test_kill_from_another_thread(self, make_runner: MakeRunner) -> None:
        """A trial can be killed while its runner waits."""
        runner = make_runner()
        lines = Lines("here", lambda: threading.Timer(0.2, runner.kill).start())
        check_killed(runner.run(command("echo here; sleep 60"), on_line=lines))

    def test_kill_before_the_start(self, make_runner: MakeRunner) -> None:
        """A runner that was killed before it could run runs nothing."""
        runner = make_runner()
        runner.kill()
        lines = Lines()
        check_killed(runner.run(command("echo here"), on_line=lines))
        assert not lines

    def test_kill_of_a_trial_that_exits_well(self, make_runner: MakeRunner) -> None:
        """A trial that takes the signal for a reason to exit with 0 has not succeeded for it."""
        runner = make_runner()
        script = "trap 'exit 0' TERM; echo here; while :; do sleep 0.05; done"
        check_killed(runner.run(command(script), on_line=Lines("here", runner.kill)))

    def test_kill_without_a_trial(self, make_runner: MakeRunner) -> None:
        """Killing what has ended does nothing."""
        runner = make_runner()
        outcome = runner.run(command("true"), on_line=Lines())
        runner.kill()
        assert outcome.exit_code == 0

    def test_a_stop_that_comes_too_late(self, make_runner: MakeRunner) -> None:
        """A trial that ended before it should have stopped was not stopped."""
        outcome = make_runner().run(command("true"), on_line=Lines(), should_stop=lambda: "goal")
        assert (outcome.exit_code, outcome.stopped) == (0, None)
