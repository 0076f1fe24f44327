"""What a validation's statistics rest on: never on the images explained, and on all layers the line-up looks at."""

from collections import OrderedDict

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from tiny import CLASS_NAMES, LAYER, SpyIBA, TinyData, TinyImages, TinyTask, tiny_trainer
from torch import nn
from torch.utils.data import DataLoader, Subset

from lightning_chex.attribution import IBA, FeatureStatistics, GradCAM, MultiLayerIBA, ObservedRows
from lightning_chex.data import SyntheticDataModule, collate
from lightning_chex.data.images.unreadable import SkipUnreadable
from lightning_chex.explanations import IBACallback
from lightning_chex.maps import feature_statistics, saved_statistics, training_batches

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on")


def callback(**options) -> IBACallback:
    return IBACallback(**{"attributor": SpyIBA(), "num_images": 3, "save_pictures": False, **options})


def assert_statistics_of(images: torch.Tensor, task: TinyTask, statistics: FeatureStatistics) -> None:
    """By hand, in float64."""
    with torch.no_grad():
        variance, mean = torch.var_mean(task.eval().model[:3](images).double(), 0)
    assert statistics.count == len(images)
    torch.testing.assert_close(statistics.mean, mean.float())
    torch.testing.assert_close(statistics.std, variance.sqrt().float())


def test_the_images_a_data_module_offers_are_left_out(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback()
    data.val.images = data.val.images[:]
    data.explained_dataset = lambda stage: Subset(data.val, [6, 1, 9, 0])  # the first three of them are explained
    tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    assert torch.equal(torch.cat(explaining.attributor.images), data.val.images[[6, 1, 9]])
    assert_statistics_of(data.val.images[[0, 2, 3, 4, 5, 7, 8]], task, explaining.attributor.statistics)


def test_without_a_data_module_the_images_kept_are_left_out(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback(num_images=5)
    tiny_trainer(tmp_path, explaining).validate(task, data.val_dataloader(), verbose=False)
    assert torch.equal(torch.cat(explaining.attributor.images), data.val.images[:5])
    assert_statistics_of(data.val.images[5:], task, explaining.attributor.statistics)


def test_each_validation_of_a_training_leaves_the_same_images_out(tmp_path):
    explaining = callback()
    seen = []

    class Watch(Callback):
        def on_validation_end(self, trainer, pl_module) -> None:
            seen.append(explaining.attributor.num_observed)

    tiny_trainer(tmp_path, explaining, Watch(), max_epochs=2, num_sanity_val_steps=0).fit(TinyTask(), TinyData())
    assert seen == [7, 7]


def test_all_count_where_other_images_are_explained(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback()
    data.explained_dataset = lambda stage: TinyImages(4, 7)
    tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    assert_statistics_of(data.val.images, task, explaining.attributor.statistics)


def test_where_all_are_explained_and_nothing_else_is_there_a_warning_says_so(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback(num_images=-1)
    with pytest.warns(UserWarning, match="all but 0 of the validation images are explained.*Reduce num_images"):
        tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    assert_statistics_of(data.val.images, task, explaining.attributor.statistics)


@pytest.mark.parametrize("images", [4, 54])
def test_few_images_left_are_replaced_by_training_images(tmp_path, images):
    """Cohen's 24 validation images less 16 explained ones leave 8, on which no deviation can rest."""
    task, explaining = TinyTask(("a",) * 8), callback()
    data = SyntheticDataModule(size=32, num_train=12, num_val=images, num_test=1, batch_size=8)
    task.class_names = list(data.class_names)
    tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    if images == 4:
        expected = torch.cat(list(training_batches(data)()))
    else:
        val = data.dataset("val")
        left = set(range(images)) - set(data.explained_dataset("validate").indices[:3])
        expected = torch.stack([val[i]["image"] for i in sorted(left)])
    assert_statistics_of(expected, task, explaining.attributor.statistics)


def test_unreadable_images_are_skipped_by_name_too(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback()
    data.val.image_ids = data.val.ids
    data.val.__class__ = type("Named", (TinyImages,), {})
    data.explained_dataset = lambda stage: Subset(SkipUnreadable(data.val, "val split", False), [8, 2, 5])
    tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    assert_statistics_of(data.val.images[[0, 1, 3, 4, 6, 7, 9]], task, explaining.attributor.statistics)


def test_no_image_is_left_out_once_a_validation_has_broken_off(tmp_path):
    class Broken(TinyTask):
        def validation_step(self, batch, batch_idx) -> None:
            raise KeyError("broken")

    with pytest.raises(KeyError):
        tiny_trainer(tmp_path, callback()).validate(Broken(), TinyData(), verbose=False)
    assert len(ObservedRows.current().select(torch.zeros(10))) == 10


# the layers of the line-up


class DenseTask(TinyTask):
    """A network whose layers are called like DenseNet's."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [("denseblock1", nn.Conv2d(3, 4, 3, padding=1)), ("relu", nn.ReLU())]
        blocks += [(f"denseblock{i}", nn.Conv2d(4, 4, 3, 2, padding=1)) for i in (2, 3)]
        self.model = nn.Sequential(
            OrderedDict(
                features=nn.Sequential(OrderedDict(blocks)),
                pool=nn.AdaptiveAvgPool2d(2),
                flat=nn.Flatten(),
                head=nn.Linear(16, len(CLASS_NAMES)),
            )
        )


LAYERS = [f"features.denseblock{i}" for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A task, its data, and a checkpoint whose callback has looked at denseblock3 alone."""
    folder = tmp_path_factory.mktemp("dense")
    task, data, explaining = DenseTask(), TinyData(), callback(attributor=SpyIBA(layer=LAYERS[2]))
    trainer = tiny_trainer(folder, explaining)
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / "dense.ckpt")
    return task.eval(), data, torch.load(folder / "dense.ckpt", weights_only=True)


def test_a_checkpoint_holds_what_multi_layer_iba_needs(trained):
    task, data, checkpoint = trained
    method = MultiLayerIBA(steps=2)
    saved = saved_statistics(checkpoint, [callback(attributor=IBA(layer=LAYERS[2]))])
    fitted = feature_statistics(task.model, {"MultiLayerIBA": method}, saved, image=data.test.images[:1])
    assert fitted.unfitted == {} and fitted.layers == {name: {"images": 7, "from": "checkpoint"} for name in LAYERS}
    direct = MultiLayerIBA(steps=2).fit(task.model, [data.val.images[3:]])
    for own, other in zip(method.members, direct.members, strict=True):
        torch.testing.assert_close(own.statistics.mean, other.statistics.mean)
        torch.testing.assert_close(own.statistics.std, other.statistics.std)
        assert torch.equal(own.statistics.active, other.statistics.active)
    images, target = data.test.images, torch.zeros(6, dtype=torch.int64)
    expected = direct.attribute(task.model, images, target)
    torch.testing.assert_close(method.attribute(task.model, images, target), expected, rtol=1e-4, atol=1e-6)


def test_what_is_kept_beside_the_methods_own_statistics_takes_half_the_room(trained):
    (state,) = (own for key, own in trained[2]["callbacks"].items() if "IBACallback" in key)
    line_up = state["line_up"]
    assert {key.rpartition("/")[0] for key in line_up} == set(LAYERS[:2])  # the third is the method's own
    assert {value.dtype for key, value in line_up.items() if key.endswith(("mean", "nonzero"))} == {torch.float32}
    assert sum(value.numel() * value.element_size() for value in line_up.values()) < 12 * (4 * 256 + 4 * 64) + 100


@pytest.mark.parametrize("older", [False, True])
def test_a_training_goes_on_from_a_checkpoint_old_or_new(trained, tmp_path, older):
    task, data, checkpoint = trained
    checkpoint = {**checkpoint, "callbacks": dict(checkpoint["callbacks"])}
    (key,) = (key for key in checkpoint["callbacks"] if "IBACallback" in key)
    state = dict(checkpoint["callbacks"][key])
    if older:
        del state["line_up"]
    checkpoint["callbacks"][key] = state
    torch.save(checkpoint, tmp_path / "before.ckpt")
    explaining = callback(attributor=SpyIBA(layer=LAYERS[2]), every_n_epochs=9)
    trainer = tiny_trainer(tmp_path, explaining, max_epochs=2)
    trainer.fit(DenseTask(), data, ckpt_path=tmp_path / "before.ckpt")  # whose validation is not due
    kept = explaining.state_dict()
    assert explaining.attributor.num_observed == 7 and ("line_up" in kept) is not older
    assert older or torch.equal(kept["line_up"][f"{LAYERS[0]}/mean"], state["line_up"][f"{LAYERS[0]}/mean"])


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"attributor": GradCAM(layer=LAYERS[2])}, LAYERS),
        ({"attributor": IBA(layer=LAYERS[1], steps=1, statistics_per="channel")}, LAYERS),
        ({"attributor": MultiLayerIBA(steps=1)}, []),
        ({"attributor": IBA(layer=LAYERS[0], steps=1), "line_up_statistics": False}, []),
    ],
)
def test_only_what_the_method_does_not_learn_itself_is_kept_and_only_if_wanted(tmp_path, options, layers):
    explaining = callback(**options)
    tiny_trainer(tmp_path, explaining).validate(DenseTask(), TinyData(), verbose=False)
    kept = explaining.state_dict().get("line_up", {})
    assert sorted({key.rpartition("/")[0] for key in kept}) == layers


def test_of_two_callbacks_one_keeps_them_and_other_networks_have_none(tmp_path):
    two = [callback(attributor=SpyIBA(layer=LAYERS[2]), name=name) for name in ("iba", "second")]
    tiny_trainer(tmp_path, *two).validate(DenseTask(), TinyData(), verbose=False)
    assert ["line_up" in own.state_dict() for own in two] == [True, False]
    other = callback(attributor=SpyIBA(layer=LAYER))
    tiny_trainer(tmp_path, other).validate(TinyTask(), TinyData(), verbose=False)
    assert "line_up" not in other.state_dict()


def test_too_few_images_left_are_taken_from_a_plain_loader_too(tmp_path):
    loader = DataLoader(TinyImages(4, 1), 2, collate_fn=collate)
    explaining = callback(num_images=4)
    with pytest.warns(UserWarning, match="all but 0 of the validation images are explained"):
        tiny_trainer(tmp_path, explaining).validate(TinyTask(), loader, verbose=False)
    assert explaining.attributor.num_observed == 4 and len(torch.cat(explaining.attributor.images)) == 4
