"""A limit on the time a run takes."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer


class TimeLimit(Timer):
    """End the training when its time is up, and begin no epoch after that.

    Lightning's own ``max_time`` looks at the clock after training batches only: when the time runs out during a
    validation, it trains one more batch and validates all over again.

    Args:
        duration: days:hours:minutes:seconds, as in ``00:00:03:30``.
    """

    def __init__(self, duration: str) -> None:
        super().__init__(duration)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the clock here too."""
        remaining = self.time_remaining()
        if not trainer.sanity_checking and remaining is not None and remaining <= 0:
            trainer.should_stop = True
