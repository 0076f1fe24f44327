"""Inverse IBA: what has to be removed from the features until the output is lost."""

from torch import Tensor

from lightning_chex.attribution.iba import IBA


class InverseIBA(IBA):
    """Inverse IBA (Eq. 4): the regions whose removal costs the model its output, at the least information.

    What the mask selects is replaced by noise, Z_inv = lambda epsilon + (1 - lambda) F, and the objective is maximised
    there, while beta L_I limits what is selected. The arguments are those of `IBA`.

    Whether it marks more of several redundant cues than IBA depends on both betas; with the defaults, on the phantom,
    it does not: see benchmarks/results/beta.md.
    """

    default_beta = {"class": 10.0, "score": 30.0}

    @staticmethod
    def noise_share(lambda_: Tensor, complement: Tensor) -> Tensor:
        """Share of noise in the features that the objective sees: lambda itself."""
        return lambda_
