"""Lightning's Trainer with the commands of this package; the methods' signatures are the command line's options."""

import pytorch_lightning as pl


class ChexTrainer(pl.Trainer):
    """A Trainer that can do more with a model and its data than train and measure."""
