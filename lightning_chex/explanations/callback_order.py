"""Order of the explaining callback among the callbacks of a trainer."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import rank_zero_info

from lightning_chex.lightning_private import callbacks_of, set_callbacks


def run_before_weight_averaging(trainer: pl.Trainer, callback: pl.Callback) -> None:
    """Move a callback before the first weight averaging, so that it sees the averaged weights.

    Weight averaging swaps its weights out when a validation ends, in the same hooks in which this callback explains.
    """
    callbacks = callbacks_of(trainer)
    averaging = [index for index, other in enumerate(callbacks) if isinstance(other, WeightAveraging)]
    if not averaging or callbacks.index(callback) < averaging[0]:
        return
    reordered = [other for other in callbacks if other is not callback]
    reordered.insert(averaging[0], callback)
    set_callbacks(trainer, reordered)
    rank_zero_info("IBACallback now runs before the weight averaging, so that the averaged weights are explained")
