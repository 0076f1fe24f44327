"""Batches as the network gets them are those of the data set, bit for bit, however they came to the device."""

import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lightning_chex.data import ImageTransform, SyntheticDataModule
from lightning_chex.data.contract import DataError
from lightning_chex.data.sample import collate
from lightning_chex.data.shipping import Packing, Planes, _table
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


class SeesBefore(Recorder):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        assert isinstance(batch["image"], torch.Tensor)
        return {**batch, "image": batch["image"] + 1}


class Draws(Recorder):
    def training_step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        assert isinstance(batch["image"], torch.Tensor)
        return self.weight * batch["image"].mean()


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


def without_shipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lightning_chex.data.datamodule.packing", lambda own, trainer: own)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_sees_the_same_batches_to_the_last_bit(workers, monkeypatch):
    made = []
    monkeypatch.setattr(Planes, "to", lambda self, *args, own=Planes.to, **options: made.append(1) or own(self, *args))
    shipped = trained(Recorder(), module(num_workers=workers, augment=True)).seen
    assert len(made) == 2 + 2 + 1  # every batch came as planes, in inference mode too
    without_shipping(monkeypatch)
    plain = trained(Recorder(), module(num_workers=workers, augment=True)).seen
    assert len(made) == 5 and [len(batches) for batches in plain.values()] == [2, 2, 1]
    for part, batches in plain.items():
        for one, other in zip(batches, shipped[part], strict=True):
            assert one["image_id"] == other["image_id"] and list(one) == list(other)
            for key in ("image", "label"):
                assert torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype
                assert one[key].stride() == other[key].stride()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_in_the_precision_of_the_network(precision, monkeypatch):
    shipped = trained(Recorder(), module(), precision=precision).seen["val"]
    without_shipping(monkeypatch)
    plain = trained(Recorder(), module(), precision=precision).seen["val"]
    wanted = {"bf16-true": torch.bfloat16, "64-true": torch.float64, "bf16-mixed": torch.float32}[precision]
    assert shipped[0]["image"].dtype == wanted
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(plain, shipped, strict=True))


def test_every_grey_value_by_arithmetic_and_by_table_is_the_one_worked_by_hand():
    planes, expected = Planes(torch.from_numpy(np.stack([EVERY, EVERY[::-1].copy()]))), by_hand(EVERY)
    for images in (planes.to("cpu"), planes.looked_up(torch.device("cpu"))):
        assert torch.equal(images[0], expected) and torch.equal(images[1], expected.flip(1))
        assert images.is_contiguous() and images.shape == planes.shape and len(planes) == 2
    assert torch.equal(ImageTransform(16)(EVERY)["image"], expected)


def test_a_training_may_use_the_table_that_a_validation_has_made():
    _table.cache_clear()
    planes = Planes(torch.from_numpy(EVERY[None].copy()))
    with torch.inference_mode():
        planes.looked_up(torch.device("cpu"))
    network = torch.nn.Conv2d(3, 1, 3)
    network(planes.looked_up(torch.device("cpu"))).sum().backward()
    assert network.weight.grad is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_to_the_last_bit():
    planes = Planes(torch.from_numpy(EVERY[None].copy())).pin_memory()
    assert planes.grey.is_pinned() and torch.equal(planes.to("cuda").cpu(), by_hand(EVERY)[None])


def test_what_leaves_a_worker_is_a_twelfth():
    loader = module(num_workers=1).train_dataloader()
    loader = DataLoader(loader.dataset, batch_size=4, num_workers=1, collate_fn=Packing(collate))
    batch = next(iter(loader))["image"]
    assert isinstance(batch, Planes) and batch.grey.dtype == torch.uint8
    assert 12 * batch.grey.nbytes == batch.to("cpu").nbytes


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


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_sees_batches_before_they_are_moved_gets_images(monkeypatch):
    seen = trained(SeesBefore(), module()).seen["val"][0]["image"]
    plain = next(iter(module().val_dataloader()))["image"]
    assert torch.equal(seen, plain + 1)
    trained(Draws(), module())


@pytest.mark.filterwarnings("ignore")
def test_so_does_a_way_of_joining_of_ones_own():
    data = module()
    data.collate = lambda samples: {"image": torch.stack([sample["image"].flip(2) for sample in samples])}
    plain = next(iter(module().val_dataloader()))["image"]
    assert torch.equal(trained(Recorder(), data).seen["val"][0]["image"], plain.flip(3))


def test_batches_without_a_trainer_are_images():
    for loader in (module().train_dataloader(), skipping().test_dataloader()):
        assert isinstance(next(iter(loader))["image"], torch.Tensor)


@pytest.mark.filterwarnings("ignore")
def test_unreadable_images_are_left_out_with_their_positions(monkeypatch):
    data = skipping()
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
