"""A training that a signal interrupts, for the command line: ``python interrupted.py EPOCH,BATCH,SIGNAL fit ...``."""

import os
import signal
import sys
from typing import Any

from tiny import TinyTask
from torch import Tensor

from lightning_chex.cli.main import main


class InterruptedTask(TinyTask):
    """Sends its own process a signal; ``AT`` in the environment says when and which."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        epoch, batch_number, name = os.environ.get("AT", "-1,0,SIGKILL").split(",")
        if (self.trainer.current_epoch, batch_idx) == (int(epoch), int(batch_number)):
            os.kill(os.getpid(), signal.Signals[name])
        return super().training_step(batch, batch_idx)


if __name__ == "__main__":
    os.environ["AT"] = sys.argv[1]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit that it is ignored
    main(sys.argv[2:])
