"""Expected Gradients: Integrated Gradients averaged over baselines that are other images."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from lightning_chex.attribution.fitted import FittedAttributor, Source
from lightning_chex.attribution.gradient.gradients import Sign, check_sign, signed_map
from lightning_chex.attribution.targets import explained_output


class ExpectedGradients(FittedAttributor):
    """Mean of ``(x - x') df/dx`` on the way from a baseline x' to the image x, over both (Erion et al. 2021).

    The baselines are images given to `fit`, the first ones; they are kept as they are, in `state_dict` and so in every
    file it is saved to. Complete: with ``sign="signed"`` a map sums to f(x) less the mean output of the baselines, but
    for the error of ``samples``. Differs from the paper in how it samples: places on the way are stratified, and every
    baseline serves equally often or once more; all images meet the same draws, so no map depends on its batch.

    Args:
        baselines: most images to keep, at least 2.
        samples: gradients an image; a multiple of ``baselines`` uses all of them equally often.
        sign: ``absolute``, ``positive`` (what speaks for the class, the rest 0) or ``signed`` (may be negative).
        seed: of the order of baselines and places; the global random state is not used.
        batch_size: targets explained at a time; changes no map.
    """

    title = "Expected Gradients"
    description = "Integrated Gradients, averaged over several images as starting points instead of an empty one."
    unit = "output"
    explains_class = None

    def __init__(
        self, baselines: int = 32, samples: int = 64, sign: Sign = "absolute", seed: int = 0, batch_size: int = 16
    ) -> None:
        super().__init__(batch_size)
        if baselines < 2:
            raise ValueError(f"baselines={baselines!r} must be at least 2 images")
        if samples < 1:
            raise ValueError(f"samples={samples!r} must be at least 1")
        self.baselines = baselines
        self.samples = samples
        self.sign = check_sign(sign)
        self.seed = seed
        self._kept = Baselines(baselines)

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the expected gradients, (N, H, W).

        Raises:
            RuntimeError: there are no baselines yet.
            ValueError: the baselines are images of another size.
        """
        if not self._kept.count:
            raise RuntimeError("ExpectedGradients has no baselines yet: call fit(model, batches) first")
        baselines = self._kept.images
        if baselines.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"the baselines are images of shape {tuple(baselines.shape[1:])}, those to explain of "
                f"{tuple(images.shape[1:])}: fit and explain with images of one size"
            )
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same draws on every device
        within = torch.rand(self.samples, generator=generator, dtype=torch.float64)
        order = torch.randperm(self.samples, generator=generator)
        places = (torch.arange(self.samples)[order] + within) / self.samples
        total = torch.zeros_like(images, dtype=torch.float32)
        for sample, place in enumerate(places.tolist()):
            way = images - baselines[sample % len(baselines)].to(images)
            point = (images - (1 - place) * way).detach().requires_grad_()
            # a copy, so that an in-place first layer does not meet the leaf
            output = explained_output(model(point.clone()), target)
            (gradient,) = torch.autograd.grad(output.sum(), point)
            total += gradient * way
        return signed_map(total / self.samples, self.sign)

    @override
    def sources(self) -> Mapping[str, Source]:
        return {"": Source(None, partial(Baselines, self.baselines), self._loaded, enough=self.baselines)}

    @override
    def learned(self) -> Mapping[str, "Baselines"]:
        return {"": self._kept}

    @override
    def take(self, learned: Mapping[str, Any]) -> None:
        self._kept = learned[""]

    def _loaded(self, state: dict[str, Tensor]) -> "Baselines":
        return Baselines.from_state_dict(state, self.baselines)


class Baselines:
    """The first images that a method has seen.

    Args:
        limit: most images to keep.

    Attributes:
        images: float32 (n, C, H, W) on the CPU, as the model sees them; (0,) before the first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.images = torch.zeros(0)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.images)

    def update(self, values: Tensor) -> None:
        """Keep images of a batch (B, C, H, W), as many as there is room for."""
        room = self.limit - self.count
        if room <= 0 or not len(values):
            return
        # a tensor made in the inference mode of a validation loop could not be used with gradients later
        with torch.inference_mode(False):
            kept = values[:room].detach().float().cpu().clone()
            self.images = torch.cat([self.images, kept]) if self.count else kept

    def check_fitted(self) -> None:
        """Raise a ValueError if there are fewer than two images."""
        if self.count < 2:
            raise ValueError(f"the baselines need at least 2 images, the batches held {self.count}")

    def synchronize(self) -> None:
        """Keep the first images of all processes of a ``torch.distributed`` group, in each of them."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        parts: list[Tensor] = [self.images] * dist.get_world_size()
        dist.all_gather_object(parts, self.images)
        seen = [part for part in parts if len(part)]
        if seen:
            self.images = torch.cat(seen)[: self.limit]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the images."""
        return {"baselines": self.images}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor], limit: int) -> Self:
        """Take over images from a state dict, at most ``limit``.

        Raises:
            ValueError: the state has no images.
        """
        images = state.get("baselines")
        if not isinstance(images, Tensor) or images.ndim not in (1, 4) or not images.isfinite().all():
            raise ValueError("this state holds no baselines (n, C, H, W) of finite values: fit anew")
        baselines = cls(limit)
        baselines.images = images[:limit]
        return baselines
