"""What the methods share that send one output back through the network."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor, frozen
from lightning_chex.attribution.chunks import in_chunks
from lightning_chex.attribution.information import image_size
from lightning_chex.attribution.targets import Targets


class BackwardAttributor(Attributor):
    """A method that sends each explained output back through the network; a child says how.

    Nothing is learnt from data. Classes and scores are explained alike, as the target says: an integer is the index of
    the explained output of (B, K); None, or the true score (which is not used), explains the only output of (B, 1) or
    (B,).

    Args:
        batch_size: targets explained at a time, which bounds the memory and changes no map; halved when the memory
            does not suffice.
    """

    def __init__(self, batch_size: int = 16) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be at least 1")
        self.batch_size = batch_size

    @property
    def explains_class(self) -> None:
        """None: both classes and scores."""

    @abstractmethod
    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the maps of N targets, one per image.

        Args:
            model: the network, frozen.
            images: (N, C, H, W), outside of inference mode.
            target: (N,), or None.

        Returns:
            (N, H, W).
        """

    def attribute(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Compute one map per target.

        Args:
            model: the network to explain; left bit for bit as it was found, also after an exception.
            images: (B, C, H, W) on the model's device.
            target: one class index per image, (B,), or several, (B, T); with ``rows``, any N of them, (N,). None, or
                floats, for the score of a model with one output.
            rows: the image each target belongs to, int64 (N,).

        Returns:
            float32 (B, H, W), (B, T, H, W), or (N, H, W) with ``rows``.

        Raises:
            ValueError: shapes of images, target, rows and output do not fit.
        """
        targets = Targets.of(images, target, rows)
        with frozen(model):
            images = images.clone() if images.is_inference() else images.detach()

            def run(start: int, stop: int) -> Tensor:
                values = None if targets.values is None else targets.values[start:stop]
                return self.maps(model, images[targets.rows[start:stop]], values).detach().float()

            parts = list(in_chunks(len(targets), self.batch_size, run))
        joined = torch.cat(parts) if parts else images.new_zeros(0, *image_size(images), dtype=torch.float32)
        return joined if rows is not None or target is None else joined.view(*target.shape, *image_size(images))


def explained_output(output: Tensor, target: Tensor | None) -> Tensor:
    """Pick the output each target explains.

    Args:
        output: (N, K), (N, 1) or (N,).
        target: integer indices of the K outputs, (N,); None or floats for the only output there is.

    Returns:
        (N,).

    Raises:
        ValueError: there is no such output.
    """
    if not isinstance(output, Tensor) or output.ndim not in (1, 2):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model's output is {found}; it must be a tensor (B, K), (B, 1) or (B,)")
    if target is None or target.is_floating_point():
        if output.ndim == 2 and output.shape[1] != 1:
            raise ValueError(f"the model has {output.shape[1]} outputs: give the index of one per image as target")
        return output.reshape(-1)
    if output.ndim == 1 or target.dtype == torch.bool:
        raise ValueError(
            f"target of dtype {target.dtype} does not suit an output of shape {tuple(output.shape)}: give integer "
            "indices for (B, K) outputs, and target=None for a single score"
        )
    if not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
        raise ValueError(
            f"target lies between {int(target.min())} and {int(target.max())}; the model has outputs 0 to "
            f"{output.shape[1] - 1}"
        )
    return output.gather(1, target[:, None])[:, 0]
