"""What the early-stopping policies save, and what they cost: against no policy and Optuna's MedianPruner.

Sweeps are simulated in virtual time: four trials run at once, every step takes one unit, and a policy sees of the other
trials what they have reported by then, which is what it sees in Airflow. Optuna's pruner sees the same reports in the
same order. Workloads:

- ``power``: noisy power laws whose end is mostly known early;
- ``crossing``: a third of the configs start badly and end best (such as small learning rates);
- ``digits``: real curves, validation error of scikit-learn's MLPClassifier on the digits data over 30 epochs.

Each of the seeds draws the configs, or their order, anew. ``saved`` is the part of all steps that was not run;
``loss of best`` is how much worse the best final value is than without a policy, in percent of it; ``kept`` is how
often the best config survived. Optuna is a dependency of this benchmark only; without it its rows are missing.

Usage: python -m benchmarks.early_stopping [--seeds 10] [--trials 40] [--workloads power crossing digits]
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Callable
from importlib.util import find_spec
from statistics import fmean

from airflow_hptuning.search.early_stopping import Policy, PolicyKind, RunningCurve, evaluation_step, should_stop_trial
from airflow_hptuning.trials import Direction

Curves = list[list[float]]
"""Loss of each trial at each step."""

Judge = Callable[[int, int, float], bool]
"""Takes a trial, its step (from 1) and its loss, and says whether it goes on."""

CONCURRENCY = 4
INTERVAL = 5
MIN_TRIALS = 5


def power(rng: random.Random, trials: int, steps: int = 50) -> Curves:
    """Power laws: a quick start and a good end go together."""
    found = []
    for _ in range(trials):
        end, height, speed = rng.uniform(0.05, 1), rng.uniform(0.5, 2), rng.uniform(0.4, 1.5)
        found.append([end + height * step**-speed + rng.gauss(0, 0.02) for step in range(1, steps + 1)])
    return found


def crossing(rng: random.Random, trials: int, steps: int = 50) -> Curves:
    """As ``power``, but every third config starts slowly and ends well."""
    found = power(rng, trials, steps)
    for number in rng.sample(range(trials), trials // 3):
        end, speed = rng.uniform(0.02, 0.4), rng.uniform(0.04, 0.12)
        found[number] = [end + 2 * 2.718281828 ** (-speed * step) + rng.gauss(0, 0.02) for step in range(1, steps + 1)]
    return found


def digits(rng: random.Random, trials: int, steps: int = 30) -> Curves:
    """Real curves: the same configs for every seed, in another order."""
    if not _DIGITS:
        _DIGITS.extend(_train(trials, steps))
    return rng.sample(_DIGITS, trials)


_DIGITS: Curves = []


def _train(trials: int, steps: int) -> Curves:
    import warnings

    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore", ConvergenceWarning)
    data, target = load_digits(return_X_y=True)
    x, x_valid, y, y_valid = train_test_split(data / 16, target, test_size=0.4, random_state=0)
    rng = random.Random(0)
    found = []
    for _ in range(trials):
        model = MLPClassifier(
            hidden_layer_sizes=(rng.choice([8, 16, 32, 64]),),
            learning_rate_init=10 ** rng.uniform(-4, -0.5),
            alpha=10 ** rng.uniform(-5, 1),
            batch_size=rng.choice([16, 32, 128]),
            solver=rng.choice(["sgd", "adam"]),
            random_state=0,
        )
        curve = []
        for _ in range(steps):
            model.partial_fit(x, y, classes=np.unique(y))
            # One more wrong answer than there are, so that percentages of the best are defined.
            curve.append((float((model.predict(x_valid) != y_valid).sum()) + 1) / len(y_valid))
        found.append(curve)
    return found


WORKLOADS = {"power": power, "crossing": crossing, "digits": digits}


def run(curves: Curves, judge: Judge) -> list[int]:
    """Run all trials in virtual time; return how many steps each was given."""
    waiting = iter(range(len(curves)))
    running = [(0, trial) for trial in (next(waiting) for _ in range(CONCURRENCY))]
    heapq.heapify(running)
    given = [0] * len(curves)
    while running:
        now, trial = heapq.heappop(running)
        given[trial] += 1
        goes_on = judge(trial, given[trial], curves[trial][given[trial] - 1])
        if goes_on and given[trial] < len(curves[trial]):
            heapq.heappush(running, (now + 1, trial))
        elif (following := next(waiting, None)) is not None:
            heapq.heappush(running, (now + 1, following))
    return given


def ours(kind: PolicyKind, percent: float = 0) -> Callable[[int], Judge]:
    """Judge by one of our policies."""
    policy = Policy("loss", Direction.MINIMIZE, kind, INTERVAL, MIN_TRIALS, percent)

    def fresh(_: int) -> Judge:
        known: dict[int, RunningCurve] = {}
        evaluated: dict[int, float] = {}

        def judge(trial: int, step: int, loss: float) -> bool:
            own = known.setdefault(trial, RunningCurve(Direction.MINIMIZE))
            own.add(step, loss)
            others = [curve for number, curve in known.items() if number != trial]
            judged_at = evaluation_step(policy, own, others, evaluated.get(trial, 0))
            if judged_at is None:
                return True
            evaluated[trial] = judged_at
            return should_stop_trial(policy, own, others, judged_at) is None

        return judge

    return fresh


def optuna_median(steps: int) -> Judge:
    """Judge by Optuna's MedianPruner with its defaults, at our interval."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=MIN_TRIALS, interval_steps=1)
    study = optuna.create_study(direction="minimize", pruner=pruner)
    asked: dict[int, optuna.Trial] = {}

    def judge(trial: int, step: int, loss: float) -> bool:
        if trial not in asked:
            asked[trial] = study.ask()
        own = asked[trial]
        own.report(loss, step)
        # Its steps count from 0.
        if step % INTERVAL == 0 and own.should_prune():
            study.tell(own, state=optuna.trial.TrialState.PRUNED)
            return False
        if step == steps:
            study.tell(own, loss)
        return True

    return judge


def contenders() -> dict[str, Callable[[int], Judge]]:
    """All judges that can run here, by name."""
    found: dict[str, Callable[[int], Judge]] = {
        "none": lambda _: lambda *_: True,
        "median": ours(PolicyKind.MEDIAN),
        "average": ours(PolicyKind.AVERAGE),
        "truncation 20%": ours(PolicyKind.TRUNCATION, 20),
        "truncation 40%": ours(PolicyKind.TRUNCATION, 40),
    }
    if find_spec("optuna"):
        found["Optuna MedianPruner"] = optuna_median
    return found


def measure(workload: str, fresh: Callable[[int], Judge], seeds: int, trials: int) -> tuple[float, float, float]:
    """Return the saved part, the loss of the best, and how often the best survived, as means over the seeds."""
    saved, lost, kept = [], [], []
    for seed in range(seeds):
        curves = WORKLOADS[workload](random.Random(seed), trials)
        given = run(curves, fresh(len(curves[0])))
        finals = [curve[-1] for curve in curves]
        whole = [finals[trial] for trial, steps in enumerate(given) if steps == len(curves[trial])]
        saved.append(1 - sum(given) / sum(map(len, curves)))
        lost.append(min(whole) / min(finals) - 1)
        kept.append(float(min(whole) == min(finals)))
    return fmean(saved), fmean(lost), fmean(kept)


def main() -> None:
    """Run all, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    arguments = parser.parse_args()
    judges = contenders()
    if "Optuna MedianPruner" not in judges:
        print("Optuna is not installed: its rows are missing.\n")
    print(f"{arguments.trials} trials, {CONCURRENCY} at once, {arguments.seeds} seeds, every {INTERVAL} steps\n")
    print("| workload | policy | saved | loss of best | kept |\n|---|---|---|---|---|")
    for workload in arguments.workloads:
        for name, fresh in judges.items():
            saved, lost, kept = measure(workload, fresh, arguments.seeds, arguments.trials)
            print(f"| {workload} | {name} | {saved:.0%} | {lost:.1%} | {kept:.0%} |")


if __name__ == "__main__":
    main()
