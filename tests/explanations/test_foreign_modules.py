"""LightningModules written without this package are explained as they are, with tuple batches of plain loaders."""

import logging
import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import SIDE, tiny_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_chex.attribution import IBA, InverseIBA, top_classes
from lightning_chex.explanations import IBACallback, arguments
from lightning_chex.explanations.explainer import Explainer
from lightning_chex.maps import agreed, infer_meaning

pytestmark = pytest.mark.filterwarnings(
    "ignore:the feature statistics rest on", "ignore:all but", "ignore:no image explained has", "ignore:.*empty maps"
)


def small_network(outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, outputs),
    )


class Foreign(pl.LightningModule):
    """Steps as people write them; a child has a network and a loss."""

    def loss(self, output, label):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class MultiLabel(Foreign):
    """The network is called ``net``, and the loss is a module too."""

    def __init__(self):
        super().__init__()
        self.net = small_network(3)
        self.criterion = nn.BCEWithLogitsLoss()

    def forward(self, x):
        return self.net(x)

    def loss(self, output, label):
        return self.criterion(output, label.float())


class MultiClass(Foreign):
    """Two parts of a network, and a forward of the module that joins them."""

    def __init__(self):
        super().__init__()
        whole = small_network(3)
        self.encoder, self.head = whole[:5], whole[5:]

    def forward(self, x):
        return self.head(self.encoder(x))

    def loss(self, output, label):
        return F.cross_entropy(output, label)


class Binary(Foreign):
    """One logit an image, without a dimension for it."""

    def __init__(self):
        super().__init__()
        self.cnn = small_network(1)

    def forward(self, x):
        return self.cnn(x).squeeze(1)

    def loss(self, output, label):
        return F.binary_cross_entropy_with_logits(output, label.float())


class FlatBinary(Foreign):
    """The flat logit is the network's own, in the module's forward."""

    def __init__(self):
        super().__init__()
        whole = small_network(1)
        self.body, self.top = whole[:5], whole[5:]

    forward = lambda self, x: self.top(self.body(x)).flatten()  # noqa: E731
    loss = Binary.loss


class Severity(Foreign):
    """A regression."""

    def __init__(self):
        super().__init__()
        self.regressor = small_network(1)

    def forward(self, x):
        return self.regressor(x)

    def loss(self, output, label):
        return F.mse_loss(output[:, 0], label)


class WithLogits(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = small_network(3)

    def forward(self, x):
        return SimpleNamespace(logits=self.layers(x), hidden_states=None)


class Transformer(Foreign):
    """A network of another library, whose output is an object with ``logits``."""

    def __init__(self):
        super().__init__()
        self.backbone = WithLogits()

    def forward(self, x):
        return self.backbone(x)

    def loss(self, output, label):
        return F.cross_entropy(output.logits, label)


COUNT = 20
IMAGES = torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
INDICES = torch.arange(COUNT) % 3
MULTI_HOT = F.one_hot(INDICES, 3) | F.one_hot((INDICES + torch.arange(COUNT) % 2) % 3, 3)
ZERO_ONE = torch.arange(COUNT) % 2
SCORES = torch.linspace(0, 3, COUNT)

CASES = {
    "multi-label": (MultiLabel, MULTI_HOT.float(), IBA, {"layer": "2"}),
    "multi-label of integers": (MultiLabel, MULTI_HOT, IBA, {"layer": "2"}),
    "multi-class": (MultiClass, INDICES, IBA, {"layer": "encoder.2"}),
    "binary": (Binary, ZERO_ONE.float(), IBA, {"layer": "2"}),
    "flat binary": (FlatBinary, ZERO_ONE, InverseIBA, {"layer": "body.2"}),
    "regression": (Severity, SCORES, IBA, {"layer": "2", "objective": "deviation"}),
    "logits": (Transformer, INDICES, IBA, {"layer": "layers.2"}),
}


def loader(labels: Tensor, *more: Tensor, shuffle: bool = False, **options) -> DataLoader:
    return DataLoader(TensorDataset(IMAGES, labels, *more), batch_size=5, shuffle=shuffle, **options)


def module_of(kind: type[Foreign]) -> Foreign:
    torch.manual_seed(0)
    return kind()


def explaining_with(method, settings, **options) -> IBACallback:
    return IBACallback(method(steps=2, **settings), save_pictures=False, **{"num_images": -1, **options})


@pytest.fixture
def explained(monkeypatch):
    """What the callback explained, by validation."""
    found: list = []
    own = Explainer.explain

    def explain(self, batches):
        made = list(own(self, batches))
        found.append(made)
        return iter(made)

    monkeypatch.setattr(Explainer, "explain", explain)
    return found


def direct(kind: str, task: Foreign, network: nn.Module, images: Tensor, target: Tensor | None, rows: Tensor) -> Tensor:
    """Maps by the attributor alone; a reference network of the same weights, written in the plainest way."""
    _, _, method, settings = CASES[kind]
    exclusive = {"objective": "softmax_cross_entropy"} if kind in ("multi-class", "logits") else {}
    attributor = method(**{**settings, "layer": "2", "steps": 2, **exclusive})
    return attributor.fit(network, [IMAGES]).attribute(network, images, target, rows)


def plain_network(task: Foreign) -> nn.Sequential:
    """The same weights in a Sequential of seven layers, in evaluation mode."""
    outputs = 1 if isinstance(task, Binary | FlatBinary | Severity) else 3
    network = small_network(outputs)
    network.load_state_dict(dict(zip(network.state_dict(), task.state_dict().values(), strict=True)))
    return network.eval()


def expected_targets(kind: str) -> tuple[Tensor, Tensor | None]:
    if kind.startswith("multi-label"):
        return tuple(MULTI_HOT.nonzero().unbind(1))
    rows = torch.arange(COUNT)
    if "binary" in kind:
        return rows, torch.zeros(COUNT, dtype=torch.long)
    return rows, None if kind == "regression" else INDICES


@pytest.mark.parametrize("kind", CASES)
def test_maps_of_foreign_modules_are_those_of_the_attributor(tmp_path, explained, kind, caplog):
    module, labels, method, settings = CASES[kind]
    task, explaining = module_of(module), explaining_with(method, settings)
    trainer = tiny_trainer(tmp_path, explaining)
    with caplog.at_level(logging.INFO):
        trainer.fit(task, loader(labels, shuffle=True), loader(labels))
    (made,) = explained
    rows, target = expected_targets(kind)
    maps = direct(kind, task, plain_network(task), IMAGES, target, rows)
    assert [one.place for one in made] == rows.tolist()
    torch.testing.assert_close(torch.stack([one.saliency for one in made]), maps, rtol=1e-4, atol=1e-6)
    assert maps.std() > 0
    output = plain_network(task)(IMAGES).detach()
    if kind == "regression":
        assert [one.target_name for one in made] == ["severity"] * COUNT
        expected = output[:, 0]
    else:
        assert [one.target_name for one in made] == [
            f"class_{number + ('binary' in kind)}" for number in target.tolist()
        ]
        exclusive = kind in ("multi-class", "logits")
        expected = (output.softmax(1) if exclusive else output.sigmoid())[rows, target]
    assert [one.prediction for one in made] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [one.image_id for one in made] == [f"image {row}" for row in rows.tolist()]
    told = [record.message for record in caplog.records if "class_names" in record.message]
    assert len(told) == 1 and "of the module or data module overrides this" in told[0]
    assert ("softmax_cross_entropy" in told[0]) == (kind in ("multi-class", "logits"))


@pytest.mark.parametrize("kind", ["multi-label", "multi-class", "binary", "regression", "logits"])
def test_training_of_foreign_modules_is_bit_for_bit_the_same(tmp_path, kind):
    module, labels, method, settings = CASES[kind]
    weights, ends = [], []
    for callbacks in ([], [explaining_with(method, settings)]):
        pl.seed_everything(1, verbose=False)
        task = module()
        trainer = tiny_trainer(tmp_path, *callbacks, max_epochs=2)
        trainer.fit(task, loader(labels, shuffle=True), loader(labels, shuffle=True))
        weights.append(task.state_dict())
        ends.append((torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))
    assert ends[0] == ends[1]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_predicted_class_is_explained_where_the_settings_say_so(tmp_path, explained):
    module, labels, method, settings = CASES["multi-class"]
    task = module_of(module)
    trainer = tiny_trainer(tmp_path, explaining_with(method, settings, targets="top"))
    trainer.validate(task, loader(labels), verbose=False)
    rows, target = top_classes(plain_network(task)(IMAGES))
    (made,) = explained
    assert [one.target for one in made] == target.tolist() != INDICES.tolist()
    maps = direct("multi-class", task, plain_network(task), IMAGES, target, rows)
    torch.testing.assert_close(torch.stack([one.saliency for one in made]), maps, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="targets='likeliest' is unknown; choose positive, top"):
        IBACallback(targets="likeliest")


def test_further_entries_of_a_batch_are_left_alone(tmp_path, explained):
    module, labels, method, settings = CASES["multi-label"]
    task = module_of(module)
    tiny_trainer(tmp_path, explaining_with(method, settings)).validate(
        task, loader(labels, torch.arange(COUNT), torch.rand(COUNT, 2)), verbose=False
    )
    assert len(explained[0]) == int(MULTI_HOT.sum())


def test_test_images_of_a_plain_loader_are_explained(tmp_path, explained):
    module, labels, method, settings = CASES["multi-class"]
    task, explaining = module_of(module), explaining_with(method, settings, num_images=4)
    trainer = tiny_trainer(tmp_path, explaining)
    trainer.fit(task, loader(labels), loader(labels))
    trainer.test(task, loader(labels), verbose=False)
    assert [one.place for one in explained[-1]] == [0, 1, 2, 3] and len(explained) == 2


def test_batches_changed_on_their_way_to_the_device_are_changed_once(tmp_path, explained):
    class Normalising(MultiLabel):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            image, label = batch
            return (image - 0.5) / 0.25, label

    task = module_of(Normalising)
    tiny_trainer(tmp_path, explaining_with(IBA, {"layer": "2"})).fit(task, loader(MULTI_HOT), loader(MULTI_HOT))
    rows, target = expected_targets("multi-label")
    images = (IMAGES - 0.5) / 0.25
    network = plain_network(task)
    maps = IBA(layer="2", steps=2).fit(network, [images]).attribute(network, images, target, rows)
    torch.testing.assert_close(torch.stack([one.saliency for one in explained[0]]), maps, rtol=1e-4, atol=1e-6)


def test_class_names_of_the_module_override_what_labels_say(tmp_path, explained):
    task = module_of(Binary)
    task.class_names = []
    settings = {"layer": "2", "objective": "deviation"}
    tiny_trainer(tmp_path, explaining_with(IBA, settings)).validate(task, loader(ZERO_ONE), verbose=False)
    assert {one.target_name for one in explained[0]} == {"severity"}
    task = module_of(MultiClass)
    task.class_names = ["a", "b", "c"]
    explaining = explaining_with(IBA, {"layer": "encoder.2"})
    tiny_trainer(tmp_path, explaining).validate(task, loader(INDICES), verbose=False)
    assert [one.target_name for one in explained[1]] == ["abc"[number] for number in INDICES.tolist()]
    assert explaining.attributor.objective.__name__ == "softmax_cross_entropy"


def test_the_default_method_takes_the_objective_of_the_labels(tmp_path, monkeypatch):
    for module, layer, labels, objective in (
        (Transformer, "layers.2", INDICES, "softmax_cross_entropy"),
        (Severity, "2", SCORES, "deviation"),
        (Binary, "2", ZERO_ONE, "binary_cross_entropy"),
    ):
        monkeypatch.setattr(arguments, "IBA", partial(IBA, layer, steps=2))
        explaining = IBACallback(num_images=-1, save_pictures=False)
        tiny_trainer(tmp_path, explaining).validate(module_of(module), loader(labels), verbose=False)
        wanted, found = IBA("2", objective=objective), explaining.attributor
        assert (found.objective, found.beta, found.explains_class) == (
            wanted.objective,
            wanted.beta,
            wanted.explains_class,
        )


def test_negative_class_indices_are_unknown(tmp_path, explained):
    labels = INDICES.clone()
    labels[4] = -100  # what cross_entropy leaves out
    task = module_of(MultiClass)
    tiny_trainer(tmp_path, explaining_with(IBA, {"layer": "encoder.2"})).validate(task, loader(labels), verbose=False)
    likeliest = plain_network(task)(IMAGES).argmax(1).tolist()
    assert [one.target for one in explained[0]] == [*INDICES[:4].tolist(), likeliest[4], *INDICES[5:].tolist()]
    assert np.isnan(explained[0][4].truth)


def test_processes_that_see_different_labels_decide_together():
    output, low, high = torch.zeros(2, 1), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 7.5])
    one, two = (infer_meaning(output, labels, "Module") for labels in (low, high))
    assert one.class_names == ["class_1"] and two.class_names == []
    assert agreed([one, one]) == one and agreed([one, two]) == agreed([two, one]) == two


class Iterated(IterableDataset):
    def __iter__(self):
        yield from zip(IMAGES, INDICES, strict=True)


def test_a_loader_without_numbers_is_explained_from_its_first_batch(tmp_path, explained):
    trainer = tiny_trainer(tmp_path, explaining_with(IBA, {"layer": "encoder.2"}))
    trainer.fit(module_of(MultiClass), loader(INDICES), DataLoader(Iterated(), batch_size=5))
    assert [one.target for one in explained[0]] == INDICES.tolist()


class Named(Dataset):
    """Samples as dicts, with ids."""

    def __init__(self, ids):
        self.ids = ids

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        return {"image": IMAGES[i], "label": MULTI_HOT[i], "image_id": self.ids[i]}


class OfDicts(MultiLabel):
    def training_step(self, batch, batch_idx):
        return self.loss(self(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


def test_repeated_ids_end_in_one_error(tmp_path, explained):
    for ids, fails in (([f"x{i}" for i in range(COUNT)], False), ([f"x{i % 19}" for i in range(COUNT)], True)):
        trainer = tiny_trainer(tmp_path, explaining_with(IBA, {"layer": "2"}))
        validation = DataLoader(Named(ids), batch_size=5)
        if not fails:
            trainer.validate(module_of(OfDicts), validation, verbose=False)
            assert explained[0][0].image_id == "x0"
            continue
        with pytest.raises(MisconfigurationException, match="two of the images to explain have the image_id 'x0'"):
            trainer.validate(module_of(OfDicts), validation, verbose=False)


def holed(labels: Tensor) -> Tensor:
    labels = labels.float().clone()
    labels[-1] = torch.nan
    return labels


def wrong_index() -> Tensor:
    labels = INDICES.clone()
    labels[-1] = 7
    return labels


@pytest.mark.parametrize(
    ("module", "labels", "words"),
    [
        (
            MultiLabel,
            torch.ones(COUNT, 4),
            r"labels have shape \(20, 4\), but there are 3 outputs: give labels \(B, 3\)",
        ),
        (MultiLabel, holed(MULTI_HOT), "labels of image 19 of a batch hold NaN or infinity"),
        (Severity, holed(SCORES), "labels of image 19 of a batch hold NaN or infinity"),
        (MultiClass, wrong_index(), "a label is 7, but the model has 3 outputs, which are never taken for a score"),
        (MultiClass, SCORES, "a label is 0.157895, but the model has 3 outputs, which are never taken for a score"),
        (MultiLabel, MULTI_HOT * 3.5, "a label is 3.5, but the 3 outputs were taken for 3 classes"),
        (Severity, torch.rand(COUNT, 2), r"labels have shape \(20, 2\), but the model gives one score"),
        (Severity, SCORES, "predicts a score.*give the attributor objective: deviation"),
    ],
)
def test_bad_labels_end_in_one_error_before_the_first_step(tmp_path, module, labels, words):
    class ObservedRows(module):
        steps = 0

        def training_step(self, batch, batch_idx):
            self.steps += 1
            return super().training_step(batch, batch_idx)

    task = ObservedRows()
    layer = "encoder.2" if module is MultiClass else "2"
    objective = {"objective": "deviation"} if module is Severity and "deviation" not in words else {}
    trainer = tiny_trainer(tmp_path, explaining_with(IBA, {"layer": layer, **objective}), num_sanity_val_steps=0)
    with pytest.raises(MisconfigurationException, match=words) as told:
        trainer.fit(task, loader(labels), loader(labels))
    assert task.steps == 0 and "\n" not in str(told.value)
    assert not any(module._forward_hooks for module in task.modules())


def test_labels_fewer_than_images_end_in_one_error(tmp_path):
    def short(samples):
        images, labels = zip(*samples, strict=True)
        return torch.stack(images), torch.stack(labels)[:-1]

    trainer = tiny_trainer(tmp_path, explaining_with(IBA, {"layer": "encoder.2"}))
    with pytest.raises(MisconfigurationException, match=r"labels have shape \(\d+,\) for \d+ images"):
        trainer.fit(module_of(MultiClass), loader(INDICES), loader(INDICES, collate_fn=short))
