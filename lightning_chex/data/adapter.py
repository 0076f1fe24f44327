"""Any data module as one that offers all of the contract, so that nobody else has to ask what there is."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import default_collate

from lightning_chex.data.contract import LabelledDataset, Samples, Split, Stage, XrayDataModule, lacks
from lightning_chex.data.overview import overview
from lightning_chex.data.predicted import Predicted

BATCH_SIZE = 16
"""Where a data module does not say."""


def adapted(datamodule: object) -> XrayDataModule:
    """Return a data module that offers the whole contract: this one if it does, else one that fills in the rest.

    Args:
        datamodule: any LightningDataModule, or None where there is none.
    """
    missing = object()
    members = [name for name in vars(XrayDataModule) if not name.startswith("_")]
    # not by hasattr, which would compute the properties
    if all(inspect.getattr_static(datamodule, name, missing) is not missing for name in members):
        return cast(XrayDataModule, datamodule)
    return Adapter(datamodule)


def data_of(trainer: pl.Trainer | None) -> XrayDataModule:
    """Return the data module of a trainer, adapted."""
    return adapted(getattr(trainer, "datamodule", None))


def name_of(data: XrayDataModule) -> str:
    """Name of the class of a data module, adapted or not."""
    return type(data.own if isinstance(data, Adapter) else data).__name__


class Adapter:
    """A data module of another kind; what it does not offer has a default.

    Args:
        own: the data module, or None.
    """

    def __init__(self, own: object) -> None:
        self.own = own
        self._looked = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and other.own is self.own

    def __hash__(self) -> int:
        return id(self.own)

    def _offer(self, name: str, default: Any) -> Any:
        found = getattr(self.own, name, None)
        return default if found is None else found

    @property
    def class_names(self) -> Sequence[str] | None:
        """See `XrayDataModule`."""
        return self._offer("class_names", None)

    @property
    def score_names(self) -> Sequence[str] | None:
        """See `XrayDataModule`."""
        return self._offer("score_names", None)

    @property
    def size(self) -> int | None:
        """See `XrayDataModule`."""
        return self._offer("size", None)

    @property
    def root(self) -> str | None:
        """See `XrayDataModule`."""
        return self._offer("root", None)

    @property
    def batch_size(self) -> int:
        """See `XrayDataModule`."""
        return self._offer("batch_size", BATCH_SIZE)

    @property
    def num_workers(self) -> int:
        """See `XrayDataModule`."""
        return self._offer("num_workers", 0)

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """See `XrayDataModule`."""
        return self._offer("collate", default_collate)

    @property
    def shuffle_labels(self) -> bool:
        """See `XrayDataModule`."""
        return self._offer("shuffle_labels", False)

    @property
    def pos_weight(self) -> Tensor | None:
        """See `XrayDataModule`."""
        return self._offer("pos_weight", None)

    @property
    def unreadable_images(self) -> Sequence[str]:
        """See `XrayDataModule`."""
        return self._offer("unreadable_images", ())

    def explained_dataset(self, stage: Stage) -> Samples | None:
        """See `XrayDataModule`."""
        return self._offer("explained_dataset", lambda stage: None)(stage)

    def parts(self) -> Mapping[str, LabelledDataset]:
        """See `XrayDataModule`; none where nobody can tell."""
        return self._offer("parts", dict)()

    def choose_predicted(self, part: str = "test", **options: Any) -> Predicted | None:
        """See `XrayDataModule`."""
        return self._offer("choose_predicted", lambda part, **options: None)(part, **options)

    def dataset(self, split: Split) -> Samples | None:
        """See `XrayDataModule`."""
        return self._offer("dataset", lambda split: None)(split)

    def readable(self, dataset: Samples, name: str) -> Samples:
        """See `XrayDataModule`."""
        return self._offer("readable", lambda dataset, name: dataset)(dataset, name)

    def look(self) -> None:
        """Let a LightningDataModule get its data, as Lightning would before a training and a test."""
        if isinstance(self.own, pl.LightningDataModule) and not self._looked:
            self.own.prepare_data()
            for stage in ("fit", "test"):
                self.own.setup(stage)
        self._looked = True

    def fingerprint(self) -> str:
        """See `XrayDataModule`."""
        return self._offer("fingerprint", lambda: "unknown")()

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """See `XrayDataModule`.

        Raises:
            MisconfigurationException: there are no parts to look at.
        """
        own = self._offer("overview", None)
        if own is not None:
            return own(num_samples)
        if self._offer("parts", None) is None:
            raise lacks(name_of(self), "parts", "inspect")
        return overview(self, num_samples, type(self.own).__name__)

    def prepare(self, output_dir: str | Path, size: int | None = None, workers: int | None = None) -> Path:
        """See `XrayDataModule`.

        Raises:
            MisconfigurationException: it cannot do that.
        """
        own = self._offer("prepare", None)
        if own is None:
            raise lacks(name_of(self), "prepare", "prepare")
        return own(output_dir, size, workers)
