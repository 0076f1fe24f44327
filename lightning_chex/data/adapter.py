"""Any data module as one that offers all of the contract."""

from typing import Any

import pytorch_lightning as pl

from lightning_chex.data.contract import XrayDataModule
from lightning_chex.data.contract import name_of as name_of
from lightning_chex.data.overview import overview

_MEMBERS = frozenset(name for name in vars(XrayDataModule) if not name.startswith("_"))


def adapted(datamodule: object) -> XrayDataModule:
    """Return a data module that offers the whole contract: this one if it does, else one that adds the defaults.

    Args:
        datamodule: any LightningDataModule, or None where there is none.
    """
    return datamodule if isinstance(datamodule, XrayDataModule) else Adapter(datamodule)


def data_of(trainer: pl.Trainer | None) -> XrayDataModule:
    """Return the data module of a trainer, adapted."""
    return adapted(getattr(trainer, "datamodule", None))


class Adapter(XrayDataModule):
    """A data module of another kind; a member that it lacks, or that is None, has the default of the contract.

    Args:
        own: the data module, or None.
    """

    def __init__(self, own: object) -> None:
        self.own = own
        self._looked = False

    def __getattribute__(self, name: str) -> Any:
        found = getattr(self.own, name, None) if name in _MEMBERS else None
        return super().__getattribute__(name) if found is None else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and other.own is self.own

    def __hash__(self) -> int:
        return id(self.own)

    def look(self) -> None:
        """Let a LightningDataModule get its data, as Lightning would before a training and a test."""
        if isinstance(self.own, pl.LightningDataModule) and not self._looked:
            self.own.prepare_data()
            for stage in ("fit", "test"):
                self.own.setup(stage)
        self._looked = True

    def overview(self, num_samples: int = 12) -> dict[str, Any]:
        """See `XrayDataModule`; other data modules need ``parts`` for it."""
        if getattr(self.own, "parts", None) is None:
            return super().overview(num_samples)
        return overview(self, num_samples)
