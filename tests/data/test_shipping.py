"""Batches as the network gets them are those of the data set, bit for bit, however they came to the device."""

import copy
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from torch.utils.data import DataLoader

from lightning_chex.data import ImageTransform, SyntheticDataModule
from lightning_chex.data.contract import DataError
from lightning_chex.data.sample import collate
from lightning_chex.data.shipping import GreyImages, Packing, Planes, ShippingLoader, _table
from lightning_chex.data.transforms import IMAGENET_MEAN, IMAGENET_STD, plane_of
from lightning_chex.data.unreadable import collate_readable

EVERY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def by_hand(grey: np.ndarray) -> torch.Tensor:
    """float32 (3, H, W), value by value, as torch divides and subtracts single numbers."""
    image = torch.empty(3, *grey.shape)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        for (y, x), value in np.ndenumerate(grey):
            share = np.float32(value) / np.float32(255)
            image[channel, y, x] = float((share - np.float32(mean)) / np.float32(std))
    return image


class Recorder(pl.LightningModule):
    """Keeps the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[dict]] = {"train": [], "val": [], "predict": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return (self.weight * batch["image"].mean()).float()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch)

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def module(**options) -> SyntheticDataModule:
    return SyntheticDataModule(num_train=8, num_val=5, num_test=2, size=32, batch_size=4, **options)


def skipping() -> SyntheticDataModule:
    """The phantom has no files that could be unreadable, so it has no option for them."""
    data = module()
    data.on_unreadable, data.collate = "skip", collate_readable
    return data


def trained(model: Recorder, data: pl.LightningDataModule, **options) -> Recorder:
    pl.seed_everything(3)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, data)
    trainer.predict(model, data)
    return model


def spied(patch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each batch that came as planes."""
    made: list[int] = []
    own = GreyImages.of
    patch.setattr(GreyImages, "of", staticmethod(lambda grey: made.append(len(grey)) or own(grey)))
    return made


def without_shipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ShippingLoader, "packed", ())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true", "bf16-mixed"])
def test_a_training_sees_the_same_batches_to_the_last_bit(precision, monkeypatch):
    made = spied(monkeypatch)
    shipped = trained(Recorder(), module(num_workers=2, augment=True), precision=precision).seen
    assert made == [4, 4, 4, 1, 2]  # every batch came as planes, in inference mode too
    without_shipping(monkeypatch)
    plain = trained(Recorder(), module(num_workers=2, augment=True), precision=precision).seen
    assert len(made) == 5 and [len(batches) for batches in plain.values()] == [2, 2, 1]
    for part, batches in plain.items():
        for one, other in zip(batches, shipped[part], strict=True):
            assert one["image_id"] == other["image_id"] and list(one) == list(other)
            for key in ("image", "label"):
                assert torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype
                assert one[key].stride() == other[key].stride()


def test_workers_draw_what_the_main_process_draws(monkeypatch):
    """So the order of images and of all else that is drawn does not tell how they came."""
    seen = {}
    for way in ("shipped", "plain"):
        torch.manual_seed(5)
        batches = list(module(num_workers=1, augment=True).train_dataloader())
        seen[way] = [(batch["image_id"], batch["image"]) for batch in batches], torch.rand(())
        without_shipping(monkeypatch)
    assert torch.equal(seen["shipped"][1], seen["plain"][1])
    for (ids, images), (others, expected) in zip(seen["shipped"][0], seen["plain"][0], strict=True):
        assert ids == others and torch.equal(images, expected)


def test_every_grey_value_by_arithmetic_and_by_table_is_the_one_worked_by_hand():
    grey, expected = torch.from_numpy(np.stack([EVERY, EVERY[::-1].copy()])), by_hand(EVERY)
    for images in (GreyImages.of(grey).to("cpu"), GreyImages.of(grey).looked_up(torch.device("cpu"))):
        assert torch.equal(images[0], expected) and torch.equal(images[1], expected.flip(1))
        assert images.is_contiguous() and images.shape == (2, 3, 16, 16) and type(images) is torch.Tensor
    assert torch.equal(ImageTransform(16)(EVERY)["image"], expected)


USES = [
    lambda x: x * 2, lambda x: 2 - x, lambda x: x.flip(-1), torch.clone, lambda x: torch.cat([x, x]), lambda x: x[0],
    torch.Tensor.double, lambda x: x.to("cpu"), lambda x: x.to(torch.float64), lambda x: x.to("cpu", torch.float16),
    lambda x: x.to(device="cpu", copy=True), lambda x: x.to(torch.zeros(1, dtype=torch.float64)), torch.Tensor.numpy,
    np.asarray, copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: x.mul_(3), torch.mean,
    lambda x: x.view(-1), lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: list(x)[1], len,
    lambda x: torch.nn.functional.conv2d(x, torch.ones(1, 3, 3, 3)), lambda x: x.requires_grad_().detach(),
    torch.is_floating_point, lambda x: x.shape, lambda x: x.size(), lambda x: x.dtype, lambda x: x.device,
    lambda x: x.stride(), lambda x: torch.where(x > 0, x, 0 * x), lambda x: x.data, lambda x: x.tolist(),
    lambda x: x.untyped_storage().nbytes(), lambda x: torch.zeros_like(x), lambda x: repr(x), lambda x: x.cpu(),
    lambda x: move_data_to_device([{"image": x}], torch.device("cpu"))[0]["image"],
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(USES)))
@pytest.mark.parametrize("inference", [False, True])
def test_whatever_is_done_with_them_is_done_with_the_images(number, inference):
    grey = torch.from_numpy(np.stack([EVERY, EVERY[::-1].copy()]))
    with torch.inference_mode(inference):
        plain = torch.stack([by_hand(EVERY), by_hand(EVERY).flip(1)])
        found, expected = USES[number](GreyImages.of(grey)), USES[number](plain)
    if isinstance(expected, torch.Tensor):
        assert type(found) is torch.Tensor and found.dtype == expected.dtype and found.stride() == expected.stride()
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def test_what_is_written_into_them_stays():
    grey, plain = torch.from_numpy(EVERY[None].copy()), by_hand(EVERY)[None]
    images = GreyImages.of(grey)
    assert isinstance(images, torch.Tensor)
    for one in (images, plain):
        one[0, 1] = 7
        one += 1
        one.mul_(2)
    assert torch.equal(images.to("cpu"), plain) and torch.equal(images * 1, plain)
    moved = images.to("meta")
    assert type(moved) is torch.Tensor and moved.dtype == torch.float32  # by the images, which are made
    images = GreyImages.of(grey)
    images.requires_grad = True
    (images * images).sum().backward()
    torch.testing.assert_close(images.grad, 2 * by_hand(EVERY)[None])


def test_moved_to_another_device_they_are_made_there():
    images = GreyImages.of(torch.zeros(2, 8, 8, dtype=torch.uint8))
    for moved in (images.to("meta"), move_data_to_device({"image": images}, torch.device("meta"))["image"]):
        assert type(moved) is torch.Tensor and moved.shape == (2, 3, 8, 8) and moved.device.type == "meta"
        assert moved.dtype == torch.float32 and moved.is_contiguous()
    assert images._made is None
    assert images.to("meta", torch.float64).dtype == torch.float64 and images._made is not None


def test_a_training_may_use_the_table_that_a_validation_has_made():
    _table.cache_clear()
    images = GreyImages.of(torch.from_numpy(EVERY[None].copy()))
    with torch.inference_mode():
        images.looked_up(torch.device("cpu"))
    network = torch.nn.Conv2d(3, 1, 3)
    network(images.looked_up(torch.device("cpu"))).sum().backward()
    assert network.weight.grad is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_to_the_last_bit():
    planes = Planes(torch.from_numpy(EVERY[None].copy())).pin_memory()
    assert planes.grey.is_pinned()
    assert torch.equal(GreyImages.of(planes.grey).to("cuda", non_blocking=True).cpu(), by_hand(EVERY)[None])


def test_what_leaves_a_worker_is_a_twelfth():
    loader = module(num_workers=1).train_dataloader()
    plain = DataLoader(loader.dataset, batch_size=4, num_workers=1, collate_fn=Packing(collate))
    batch = next(iter(plain))["image"]
    assert isinstance(batch, Planes) and batch.grey.dtype == torch.uint8
    assert 12 * batch.grey.nbytes == GreyImages.of(batch.grey).made().nbytes


def test_an_image_changed_after_the_transform_goes_as_it_is():
    def sample() -> dict:
        return {**ImageTransform(16)(EVERY), "image_id": "a", "patient_id": "b"}

    def through_numpy(image):
        image.numpy()[:] = image.numpy()[:, ::-1].copy()
        return image

    assert isinstance(Packing(collate)([sample(), sample()])["image"], Planes)
    for change in (lambda image: image.flip(1), lambda image: image.mul_(2), through_numpy, torch.clone):
        with torch.inference_mode():
            changed = sample()
            changed["image"] = change(changed["image"])
            batch = Packing(collate)([sample(), changed])
        assert torch.equal(batch["image"], torch.stack([sample()["image"], changed["image"]]))
    assert torch.equal(plane_of(sample()["image"]), torch.from_numpy(EVERY))
    # what is kept of an image is the image
    assert plane_of(torch.from_numpy(pickle.loads(pickle.dumps(sample()["image"].numpy())))) is None


def test_the_error_of_a_sample_that_is_none_stays():
    with pytest.raises(DataError, match="a sample is None"):
        Packing(collate)([None])


class Looks(Recorder):
    """Takes batches from the loaders itself, and its own share of those of the loop."""

    def on_fit_start(self):
        self.own = [
            next(iter(self.trainer.datamodule.val_dataloader()))["image"],
            next(iter(self.trainer.train_dataloader or self.trainer.datamodule.train_dataloader()))["image"],
        ]

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "image": batch["image"] + 1}


class Mirrored(SyntheticDataModule):
    """Wraps what the loader gives, and what joins its samples."""

    def train_dataloader(self):
        for batch in super().train_dataloader():
            yield {**batch, "image": batch["image"].flip(-1)}

    def val_dataloader(self):
        loader = super().val_dataloader()
        joins = loader.collate_fn
        loader.collate_fn = lambda samples: {**(batch := joins(samples)), "image": batch["image"] * 2}
        return loader


@pytest.mark.filterwarnings("ignore")
def test_whoever_takes_batches_from_a_loader_gets_images(monkeypatch):
    made = spied(monkeypatch)
    data = module(num_workers=1)
    model = trained(Looks(), data)
    plain = next(iter(module().val_dataloader()))["image"]
    assert torch.equal(model.own[0], plain) and model.own[1].shape == plain.shape and made
    assert torch.equal(model.seen["val"][0]["image"], plain + 1)
    for _ in range(2):  # the trainer is still there
        assert torch.equal(next(iter(data.val_dataloader()))["image"], plain)
    given = trained(Recorder(), data.val_dataloader()).seen["train"][0]["image"]
    assert torch.equal(given, plain)


def test_loaders_and_joining_may_be_wrapped():
    data = Mirrored(num_train=8, num_val=5, num_test=2, size=32, batch_size=4, num_workers=1)
    plain = module()
    torch.manual_seed(1)
    mirrored = list(data.train_dataloader())
    torch.manual_seed(1)
    for one, other in zip(mirrored, plain.train_dataloader(), strict=True):
        assert one["image"].shape == other["image"].shape and isinstance(one["image"], torch.Tensor)
    for one, other in zip(data.val_dataloader(), plain.val_dataloader(), strict=True):
        assert torch.equal(one["image"], 2 * other["image"])


def test_a_way_of_joining_of_ones_own_gets_images():
    data = module(num_workers=1)
    data.collate = lambda samples: {"image": torch.stack([sample["image"].flip(2) for sample in samples])}
    plain = next(iter(module().val_dataloader()))["image"]
    assert torch.equal(next(iter(data.val_dataloader()))["image"], plain.flip(3))


def test_a_loader_is_read_again_and_again_by_the_same_workers(monkeypatch):
    made = spied(monkeypatch)
    loader = module(num_workers=1).val_dataloader()
    first, second = list(loader), list(loader)
    assert loader.collate_fn is collate and made == [4, 1, 4, 1]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["image"], other["image"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_with_their_positions(workers, monkeypatch):
    data = skipping()
    data.num_workers = workers
    data.setup("fit")
    dataset = data.dataset("val")
    own = type(dataset).__getitem__

    def broken(self, index):
        if self is dataset and index == 1:
            raise DataError("cannot read it")
        return own(self, index)

    monkeypatch.setattr(type(dataset), "__getitem__", broken)
    first = trained(Recorder(), data).seen["val"][0]
    assert first["positions"] == [0, 2, 3] and torch.equal(first["image"][1], dataset[2]["image"])
