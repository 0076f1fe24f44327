"""Lightning's Trainer with the commands of this package; the methods' signatures are the command line's options."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.reporting.overview import overview_text, write_overview


class ChexTrainer(pl.Trainer):
    """A Trainer that can do more with a model and its data than train and measure."""

    def prepare(
        self,
        model: pl.LightningModule | None,
        datamodule: Any,
        output_dir: str,
        size: int | None = None,
        workers: int | None = None,
    ) -> None:
        """Resize all images once, into a copy that training reads quickly: --data.prepared OUTPUT_DIR.

        An interrupted call goes on where it was when it is given again.

        Args:
            model: not used.
            datamodule: whose images; a ``ChestXrayDataModule``.
            output_dir: where the copy shall be, a new or an empty folder.
            size: longest side of the images in pixels, the data.size of the training; by default this data.size.
            workers: processes that read and resize; by default one per core.

        Raises:
            MisconfigurationException: no data module, or one that cannot do that.
        """
        if not hasattr(datamodule, "prepare"):
            raise MisconfigurationException(
                f"prepare needs a data module of lightning_chex.data, not {type(datamodule).__name__}: give --data"
            )
        datamodule.prepare(output_dir, size, workers)

    def inspect(self, model: pl.LightningModule | None, datamodule: Any, output_dir: str = "inspect") -> None:
        """Show what a data root holds: a table here, and a sheet of sample images in a file.

        Missing images are counted, whatever data.allow_missing says; bad tables and files are errors.

        Args:
            model: not used.
            datamodule: the data to look at; a ``ChestXrayDataModule``.
            output_dir: where the sheet goes.

        Raises:
            MisconfigurationException: no data module, or one that cannot do that, or a folder that cannot be written.
        """
        if not hasattr(datamodule, "overview"):
            raise MisconfigurationException(
                f"inspect needs a data module of lightning_chex.data, not {type(datamodule).__name__}: give --data"
            )
        found = datamodule.overview()
        print(overview_text(found))
        try:
            print(f"\npictures        {write_overview(found, Path(output_dir).expanduser())}")
        except OSError as error:
            raise MisconfigurationException(
                f"output_dir={output_dir!r} cannot be written to ({error.strerror}): give another folder"
            ) from error
