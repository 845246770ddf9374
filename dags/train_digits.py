"""Train a small neural network on scikit-learn's handwritten digits: what the example sweeps run.

It needs nothing of Airflow and runs by hand just as well::

    python dags/train_digits.py --learning-rate 0.01 --activation tanh --epochs 5

What makes it a trial: the parameters come in as arguments, and the metrics go out through ``log_metrics`` (or
as plain ``accuracy=0.97 loss=0.11`` lines on the standard output). The same arguments give the same metrics.

What makes it a trial that can resume (Hyperband with ``resume: true``, or another try after an interruption): it
leaves a checkpoint in its folder after every epoch, and goes on from the one that it finds there.
"""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

from airflow_hptuning.tracking import get_outputs_path, log_metrics


def parse_arguments() -> argparse.Namespace:
    """Read the command line: one argument per parameter of the sweeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--activation", choices=["relu", "tanh", "logistic"], default="relu")
    parser.add_argument("--hidden", type=int, default=64, help="units of the hidden layer")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_checkpoint(path: Path | None) -> tuple[int, Any]:
    """Return how many epochs the checkpoint has behind it, and its model; 0 and None where there is none."""
    if path is None or not path.exists():
        return 0, None
    epochs, model = pickle.loads(path.read_bytes())  # noqa: S301 - this script wrote it, in the trial's own folder
    print(f"resumed after epoch {epochs}")
    return epochs, model


def save_checkpoint(path: Path, epochs: int, model: Any) -> None:
    """Write the checkpoint in one step, so that an interruption never leaves half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".new")
    half.write_bytes(pickle.dumps((epochs, model)))
    half.replace(path)


def main() -> None:
    """Train, and report the quality on held-out digits after every epoch."""
    arguments = parse_arguments()
    # Several trials share the machine: one core each, and sums in the same order every time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Imported here so that --help answers at once, and after the line above took effect.
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images / 16, labels, test_size=0.25, random_state=arguments.seed, stratify=labels
    )
    # A trial has a folder of its own; run by hand there is none, and nothing is written.
    outputs = get_outputs_path()
    checkpoint = Path(outputs) / "checkpoint.pickle" if outputs else None
    trained, model = load_checkpoint(checkpoint)
    model = model or MLPClassifier(
        hidden_layer_sizes=(arguments.hidden,),
        activation=arguments.activation,
        solver="sgd",
        learning_rate_init=arguments.learning_rate,
        momentum=arguments.momentum,
        alpha=arguments.weight_decay,
        batch_size=arguments.batch_size,
        random_state=arguments.seed,
    )
    for epoch in range(trained + 1, arguments.epochs + 1):
        model.partial_fit(x_train, y_train, classes=range(10))
        loss = float(log_loss(y_test, model.predict_proba(x_test)))
        log_metrics(step=epoch, loss=loss, accuracy=float(model.score(x_test, y_test)))
        if checkpoint:
            save_checkpoint(checkpoint, epoch, model)


if __name__ == "__main__":
    main()
