"""The callback for fastai 1."""

from __future__ import annotations

from typing import Any

from fastai.callbacks import TrackerCallback


class PolyaxonFastai(TrackerCallback):
    """Reports the metrics of each epoch.

    Args:
        learn: The learner.
        experiment: What to report to.
        monitor: As in fastai.
        mode: As in fastai.
    """

    def __init__(self, learn: Any, experiment: Any, monitor: str = "val_loss", mode: str = "auto") -> None:
        super().__init__(learn, monitor=monitor, mode=mode)
        self.experiment = experiment

    def on_epoch_end(self, epoch: int, smooth_loss: Any, last_metrics: Any, **_: Any) -> None:
        """Report the metrics of an epoch."""
        names = self.learn.recorder.names[1:]
        values = dict(zip(names, [smooth_loss, *(last_metrics or [])]))
        self.experiment.log_metrics(step=epoch, **values)
