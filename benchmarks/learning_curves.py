"""What Hyperband finds at an equal budget of epochs: ours, Optuna's HyperbandPruner, and random search.

The task is scikit-learn's digits with wrong labels among them, an MLPClassifier trained epoch by epoch, and six
hyperparameters. The budget is what 27/3 with ``resume`` trains: 357 epochs. Every contender is judged by the best
validation loss (mean negative log likelihood) that any of its trials ended with, and by the test accuracy of that one.
A seed fixes the split of the data and the draws.

Optuna is a dependency of this benchmark only; without it its rows are missing.
"""

from __future__ import annotations

import os
import time
import warnings
from importlib.util import find_spec
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from attrs import define, field

from airflow_hptuning.planning import algorithm_of
from airflow_hptuning.polyaxonfile.parser import parse_text
from airflow_hptuning.search.hyperband import Hyperband
from airflow_hptuning.search.simulation import critical_path
from airflow_hptuning.trials import CompletedTrial, TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SWEEP = """
version: 1
kind: group
hptuning:
  hyperband:
    max_iter: 27
    eta: 3
    resume: true
    resource: {name: epochs, type: int}
    metric: {name: loss, optimization: minimize}
  matrix:
    # Natural logarithms: 0.0001 to 1.
    lr: {loguniform: [-9.21, 0]}
    momentum: {uniform: [0, 0.99]}
    alpha: {loguniform: [-11.5, 2.3]}
    hidden: {values: [8, 16, 32, 64, 128]}
    batch: {values: [8, 16, 32, 64, 128]}
    activation: {values: [relu, tanh, logistic]}
run: {cmd: "train {{ lr }} {{ momentum }} {{ alpha }} {{ hidden }} {{ batch }} {{ activation }} {{ epochs }}"}
"""

SPEC = parse_text(SWEEP)
MAX_EPOCHS = 27
NOISE = 0.15
"""Part of the training labels that are wrong."""


@define
class Task:
    """The data of one seed, and what has been trained on it.

    Attributes:
        seed: The seed.
        epochs: Epochs that were trained.
        best: Best final loss of a trial, with the test accuracy of its model.
        data: Training, validation and test data, each with its labels.
    """

    seed: int
    epochs: int = 0
    best: tuple[float, float] = (float("inf"), 0.0)
    data: tuple[Any, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Split the data, and spoil some labels."""
        import numpy as np
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, target = load_digits(return_X_y=True)
        rest, x_test, y_rest, y_test = train_test_split(images / 16, target, test_size=0.3, random_state=self.seed)
        x, x_valid, y, y_valid = train_test_split(rest, y_rest, test_size=0.4, random_state=self.seed)
        rng = np.random.default_rng(self.seed)
        y = np.where(rng.random(len(y)) < NOISE, rng.integers(0, 10, len(y)), y)
        self.data = (x, y, x_valid, y_valid, x_test, y_test)

    def model(self, config: Mapping[str, Any]) -> Model:
        """Return an untrained model."""
        return Model(self, config)

    def ended(self, loss: float, model: Model) -> None:
        """Take in the end of a trial."""
        if loss < self.best[0]:
            self.best = (loss, model.test())


class Model:
    """A network that is trained one epoch at a time, as a trial with checkpoints would."""

    def __init__(self, task: Task, config: Mapping[str, Any]) -> None:
        from sklearn.neural_network import MLPClassifier

        self._task = task
        self._net = MLPClassifier(
            hidden_layer_sizes=(config["hidden"],),
            activation=config["activation"],
            solver="sgd",
            learning_rate_init=config["lr"],
            momentum=config["momentum"],
            alpha=config["alpha"],
            batch_size=config["batch"],
            random_state=task.seed,
        )

    def epoch(self) -> float:
        """Train one epoch, and return the validation loss; a network that diverged has a large one."""
        import numpy as np
        from sklearn.metrics import log_loss

        x, y, x_valid, y_valid, *_ = self._task.data
        self._task.epochs += 1
        try:
            self._net.partial_fit(x, y, classes=np.arange(10))
            return float(log_loss(y_valid, np.nan_to_num(self._net.predict_proba(x_valid)) + 1e-9))
        except ValueError:
            # Its weights have become infinite.
            return 100.0

    def test(self) -> float:
        """Return the accuracy on the test data."""
        *_, x_test, y_test = self._task.data
        return float(self._net.score(x_test, y_test))


def ours(task: Task, _budget: int) -> None:
    """Run the brackets of our Hyperband, whose trials go on from their checkpoints."""
    algorithm = algorithm_of(SPEC, seed=task.seed)
    if not isinstance(algorithm, Hyperband):
        raise TypeError(algorithm.name)
    for bracket in algorithm.brackets:
        trials = algorithm.initial(bracket.bracket)
        models: dict[str, tuple[int, Model]] = {}
        for rung in bracket.rungs:
            results = []
            for trial in trials:
                done, model = models.get(trial.config_id) or (0, task.model(trial.params))
                loss = [model.epoch() for _ in range(int(trial.resource or 0) - done)][-1]
                models[trial.config_id] = (int(trial.resource or 0), model)
                task.ended(loss, model)
                results.append(CompletedTrial(trial.trial, trial.params, loss, TrialState.SUCCEEDED))
            trials = algorithm.promote(bracket.bracket, rung.rung, results)


def random_search(task: Task, budget: int) -> None:
    """Train random configs to the end until the budget is used up."""
    from airflow_hptuning.search.base import distinct_configs, stream

    for config in distinct_configs(SPEC.space, stream(task.seed, "random")):
        model = task.model(config)
        for _ in range(min(MAX_EPOCHS, budget - task.epochs)):
            loss = model.epoch()
        task.ended(loss, model)
        if task.epochs >= budget:
            return


def optuna_hyperband(sampler: str) -> Callable[[Task, int], None]:
    """Optuna's HyperbandPruner over the same space, with one of its samplers."""

    def run(task: Task, budget: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction="minimize",
            sampler=getattr(optuna.samplers, sampler)(seed=task.seed),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=MAX_EPOCHS, reduction_factor=3),
            study_name=f"seed {task.seed}",
        )

        def objective(trial: optuna.Trial) -> float:
            config = {
                "lr": trial.suggest_float("lr", 1e-4, 1, log=True),
                "momentum": trial.suggest_float("momentum", 0, 0.99),
                "alpha": trial.suggest_float("alpha", 1e-5, 10, log=True),
                "hidden": trial.suggest_categorical("hidden", [8, 16, 32, 64, 128]),
                "batch": trial.suggest_categorical("batch", [8, 16, 32, 64, 128]),
                "activation": trial.suggest_categorical("activation", ["relu", "tanh", "logistic"]),
            }
            model, loss = task.model(config), float("inf")
            for step in range(1, MAX_EPOCHS + 1):
                loss = model.epoch()
                trial.report(loss, step)
                if task.epochs >= budget:
                    study.stop()
                    break
                if trial.should_prune():
                    task.ended(loss, model)
                    raise optuna.TrialPruned
            task.ended(loss, model)
            return loss

        study.optimize(objective)

    return run


def report_quality(seeds: int) -> None:
    """Run all contenders on all seeds, and print a table."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    algorithm = algorithm_of(SPEC, seed=0)
    if not isinstance(algorithm, Hyperband):
        raise TypeError(algorithm.name)
    budget = round(critical_path(algorithm.brackets, resume=True).work)
    contenders: dict[str, Callable[[Task, int], None]] = {"Hyperband (ours)": ours, "random search": random_search}
    if find_spec("optuna"):
        for sampler in ("RandomSampler", "TPESampler"):
            contenders[f"Optuna HyperbandPruner, {sampler}"] = optuna_hyperband(sampler)
    else:
        print("Optuna is not installed: its rows are missing.\n")
    found: dict[str, list[Task]] = {name: [] for name in contenders}
    for seed in range(seeds):
        for name, run in contenders.items():
            task, began = Task(seed), time.monotonic()
            run(task, budget)
            found[name].append(task)
            print(f"seed {seed}: {name}: {task.best[0]:.4f}, {task.epochs} epochs, {time.monotonic() - began:.0f} s")
    print(f"\nbudget {budget} epochs, {seeds} seeds\n")
    print("| contender | validation loss | test accuracy | mean rank | wins |\n|---|---|---|---|---|")
    ranks = [sorted(contenders, key=lambda name: found[name][seed].best[0]) for seed in range(seeds)]
    for name, tasks in found.items():
        losses = [task.best[0] for task in tasks]
        places = [order.index(name) + 1 for order in ranks]
        print(
            f"| {name} | {fmean(losses):.4f} ± {stdev(losses):.4f} | {fmean(task.best[1] for task in tasks):.4f} |"
            f" {fmean(places):.1f} | {places.count(1)} |"
        )
