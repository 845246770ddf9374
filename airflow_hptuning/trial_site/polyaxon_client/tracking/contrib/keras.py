"""The callback for Keras."""

from __future__ import annotations

from typing import Any

from airflow_hptuning.tracking import Experiment

try:
    from keras.callbacks import Callback
except ImportError:
    from tensorflow.keras.callbacks import Callback


class PolyaxonKeras(Callback):
    """Reports the metrics of each epoch.

    Args:
        experiment: What to report to; default: the running trial.
        metrics: Names of the metrics to report; default: all.
    """

    def __init__(self, experiment: Any = None, metrics: Any = None, **_: Any) -> None:
        super().__init__()
        self.experiment = experiment or Experiment()
        self.metrics_to_report = metrics

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the metrics of an epoch."""
        values = dict(logs or {})
        names = self.metrics_to_report or list(values)
        self.experiment.log_metrics(step=epoch, **{name: values[name] for name in names if name in values})


PolyaxonCallback = PolyaxonKeras
