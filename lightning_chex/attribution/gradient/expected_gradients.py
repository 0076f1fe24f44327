"""Expected Gradients: Integrated Gradients averaged over baselines that are other images."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.bottleneck.image_learning import observed_images
from lightning_chex.attribution.gradient.gradients import Sign, check_sign, signed_map
from lightning_chex.attribution.targets import explained_output


class ExpectedGradients(Attributor):
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
        self._kept = torch.zeros(0)

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the expected gradients, (N, H, W).

        Raises:
            RuntimeError: there are no baselines yet.
            ValueError: the baselines are images of another size.
        """
        if not len(self._kept):
            raise RuntimeError("ExpectedGradients has no baselines yet: call fit(model, batches) first")
        if self._kept.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"the baselines are images of shape {tuple(self._kept.shape[1:])}, those to explain of "
                f"{tuple(images.shape[1:])}: fit and explain with images of one size"
            )
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same draws on every device
        within = torch.rand(self.samples, generator=generator, dtype=torch.float64)
        order = torch.randperm(self.samples, generator=generator)
        places = (torch.arange(self.samples)[order] + within) / self.samples
        total = torch.zeros_like(images, dtype=torch.float32)
        for sample, place in enumerate(places.tolist()):
            way = images - self._kept[sample % len(self._kept)].to(images)
            point = (images - (1 - place) * way).detach().requires_grad_()
            # a copy, so that an in-place first layer does not meet the leaf
            output = explained_output(model(point.clone()), target)
            (gradient,) = torch.autograd.grad(output.sum(), point)
            total += gradient * way
        return signed_map(total / self.samples, self.sign)

    # the baselines

    def fit(self, model: nn.Module, batches: Iterable[Tensor]) -> Self:
        """Keep the first images of the batches as baselines; the batches behind them are not read.

        Args:
            model: not used.
            batches: image batches (B, C, H, W), not those that will be explained.

        Raises:
            ValueError: fewer than two images.
        """
        found: list[Tensor] = []
        for images in batches:
            self._add(found, images)
            if sum(map(len, found)) >= self.baselines:
                break
        if sum(map(len, found)) < 2:
            raise ValueError(f"the baselines need at least 2 images, the batches held {sum(map(len, found))}")
        self._kept = torch.cat(found)
        return self

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Within the context, keep the first images that ``model`` sees and that count; see `Attributor.observing`."""
        found: list[Tensor] = []
        with observed_images(model, lambda images: self._add(found, images)):
            yield
        self._kept = torch.cat(found) if found else torch.zeros(0)

    def _add(self, found: list[Tensor], images: Tensor) -> None:
        room = self.baselines - sum(map(len, found))
        if room > 0 and len(images):
            with torch.inference_mode(False):  # what is kept must outlive the inference mode of a validation loop
                found.append(images[:room].detach().float().cpu().clone())

    def synchronize(self) -> None:
        """Keep the first images of all processes of a ``torch.distributed`` group, in each of them."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            parts: list[Tensor] = [self._kept] * dist.get_world_size()
            dist.all_gather_object(parts, self._kept)
            self._kept = torch.cat([part for part in parts if len(part)] or [self._kept])[: self.baselines]

    def state_dict(self) -> dict[str, Tensor]:
        """The baselines, float32 (n, C, H, W): images, as the model sees them."""
        return {"baselines": self._kept}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the baselines of another instance.

        Raises:
            ValueError: the state holds none.
        """
        kept = state.get("baselines")
        if not isinstance(kept, Tensor) or kept.ndim not in (1, 4) or not kept.isfinite().all():
            raise ValueError("this state holds no baselines (n, C, H, W) of finite values: fit anew")
        self._kept = kept[: self.baselines]

    @property
    def num_observed(self) -> int:
        """Number of baselines."""
        return len(self._kept)
