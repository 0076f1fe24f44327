"""Inverse IBA: the deletion game that marks every cue, not just enough of them."""

from torch import Tensor

from lightning_chex.attribution.iba import IBA
from lightning_chex.attribution.objectives import Objective, ObjectiveName
from lightning_chex.attribution.statistics import Granularity


class InverseIBA(IBA):
    """Inverse IBA (Eq. 4): every region with predictive information, not only enough of them.

    A deletion game: what the mask selects is replaced by noise, Z_inv = lambda epsilon + (1 - lambda) F, until nothing
    is left from which the target could be told, at the least information in the selection. Where two cues each suffice,
    IBA keeps one; Inverse IBA has to delete, and so marks, both.

    Args:
        layer: see `IBA`.
        beta: weight of the information term; larger selects less (the authors' 30).
        steps: see `IBA`.
        lr: see `IBA`.
        noise_samples: see `IBA`.
        objective: what has to be destroyed; see `IBA`.
        blur_sigma: see `IBA`.
        initial_alpha: see `IBA`.
        statistics_per: see `IBA`.
        bfloat16: see `IBA`.
        batch_size: see `IBA`.
        memory: see `IBA`.
        seed: see `IBA`.
    """

    def __init__(
        self,
        layer: str = "features.denseblock3",
        beta: float = 30.0,
        steps: int = 10,
        lr: float = 1.0,
        noise_samples: int = 2,
        objective: ObjectiveName | Objective = "binary_cross_entropy",
        blur_sigma: float = 1.0,
        initial_alpha: float = 5.0,
        statistics_per: Granularity = "neuron",
        bfloat16: bool = False,
        batch_size: int | None = None,
        memory: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            layer, beta, steps, lr, noise_samples, objective, blur_sigma, initial_alpha, statistics_per, bfloat16,
            batch_size, memory, seed,
        )  # fmt: skip

    @staticmethod
    def noise_share(lambda_: Tensor, complement: Tensor) -> Tensor:
        """Share of noise in the features the objective sees: lambda itself."""
        return lambda_
