"""LightningModules that know nothing of this package, with tuple batches, explained unchanged."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import tiny_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_chex.attribution import IBA
from lightning_chex.callbacks import IBACallback
from lightning_chex.callbacks.batches import Seen, infer, log_odds, with_class_labels
from lightning_chex.reporting import Explanation

pytestmark = pytest.mark.filterwarnings(
    "ignore:the feature statistics rest on", "ignore:no image explained has", "ignore:empty maps", "ignore:all but"
)

COUNT = 6


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
    """What the five have in common."""

    outputs = 1

    def __init__(self) -> None:
        super().__init__()
        self.net = small_network(self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch[:2]
        return self.loss(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch[:2]
        self.log("val_loss", self.loss(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class MultiLabel(Foreign):
    outputs = 3

    def loss(self, output, y):
        return F.binary_cross_entropy_with_logits(output, y.float())


class MultiClass(Foreign):
    outputs = 3

    def loss(self, output, y):
        return F.cross_entropy(output, y)


class Binary(Foreign):
    def loss(self, output, y):
        return F.binary_cross_entropy_with_logits(output[:, 0], y.float())


class Regression(Foreign):
    def loss(self, output, y):
        return F.mse_loss(output[:, 0], y)


class TwoParts(MultiClass):
    """Backbone and head under names of its own; the network is the LightningModule itself."""

    def __init__(self) -> None:
        super().__init__()
        whole = self.net
        del self.net
        self.backbone = whole[:4]
        self.head = whole[4:]

    def forward(self, x):
        return self.head(self.backbone(x))


INDEX = torch.tensor([0, 2, 1, 1, 0, 2])
MULTI_HOT = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])

CASES = {
    "multi-label": (MultiLabel, (MULTI_HOT.float(),), "2", "binary_cross_entropy"),
    "multi-label of integers": (MultiLabel, (MULTI_HOT,), "2", "binary_cross_entropy"),
    "multi-class": (MultiClass, (INDEX,), "2", "softmax_cross_entropy"),
    "binary": (Binary, (torch.tensor([0, 1, 1, 0, 1, 0]),), "2", "binary_cross_entropy"),
    "score": (Regression, (torch.tensor([0.5, 3.0, 7.0, 1.0, 12.0, 2.0]),), "2", "deviation"),
    "parts and a third member": (TwoParts, (INDEX, torch.arange(6)), "backbone.2", "softmax_cross_entropy"),
}


def images() -> Tensor:
    return torch.rand(COUNT, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def loader(labels: tuple[Tensor, ...], **options) -> DataLoader:
    return DataLoader(TensorDataset(images(), *labels), batch_size=4, **options)


class Kept(IBACallback):
    """Keeps what it would show."""

    def on_validation_end(self, trainer, pl_module):
        if self._explanations:
            self.shown: list[Explanation] = list(self._explanations)
            self.weights = copy.deepcopy(pl_module)
        super().on_validation_end(trainer, pl_module)


def fit(folder, module: type[Foreign], labels: tuple[Tensor, ...], *callbacks, **options):
    torch.manual_seed(3)
    task = module()
    trainer = tiny_trainer(folder, *callbacks, max_epochs=2, **options)
    trainer.fit(task, loader(labels, shuffle=True), loader(labels))
    return task, torch.get_rng_state()


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_maps_are_those_of_the_attributor_called_directly(tmp_path, name, sanity):
    module, labels, layer, objective = CASES[name]
    explaining = Kept(IBA(layer, steps=3, objective=objective), num_images=-1)
    task, state = fit(tmp_path, module, labels, explaining, num_sanity_val_steps=sanity)

    network = explaining.weights.net if layer == "2" else explaining.weights
    network.eval()
    direct = IBA(layer, steps=3, objective=objective).fit(network, [images()])
    output = network(images()).detach()
    if name == "score":
        expected = [(row, None, "severity", output[row, 0], labels[0][row]) for row in range(COUNT)]
    elif name == "binary":
        p = output[:, 0].sigmoid()
        expected = [(row, 0, "class_1", p[row], labels[0][row]) for row in range(COUNT)]
    elif objective == "softmax_cross_entropy":
        p = output.softmax(1)
        expected = [(row, int(k), f"class_{k}", p[row, k], 1.0) for row, k in enumerate(INDEX)]
    else:
        p = output.sigmoid()
        positive = [(row, k) for row in range(COUNT) for k in range(3) if MULTI_HOT[row, k]]
        likeliest = (2, int(output[2].argmax()))  # an image without any positive label
        expected = [(row, k, f"class_{k}", p[row, k], MULTI_HOT[row, k]) for row, k in sorted([*positive, likeliest])]
    assert len(explaining.shown) == len(expected)
    for shown, (row, k, target, prediction, truth) in zip(explaining.shown, expected, strict=True):
        target_index = None if k is None else torch.tensor([k])
        by_hand = direct.attribute(network, images()[row : row + 1], target_index)[0]
        torch.testing.assert_close(shown.saliency, by_hand, rtol=1e-3, atol=1e-5)
        assert (shown.place, shown.target, shown.target_name) == (row, k, target)
        assert shown.prediction == pytest.approx(float(prediction), rel=1e-4)
        assert shown.truth == float(truth)

    alone, state_alone = fit(tmp_path, module, labels, num_sanity_val_steps=sanity)
    for key, value in alone.state_dict().items():
        assert torch.equal(value, task.state_dict()[key])
    assert torch.equal(state, state_alone)


def test_the_default_method_takes_the_objective_of_the_labels(tmp_path, monkeypatch):
    from lightning_chex.callbacks import arranging

    monkeypatch.setattr(arranging, "IBA", lambda: IBA("2", steps=2))
    for name in ("multi-class", "score", "binary"):
        module, labels, layer, objective = CASES[name]
        explaining = IBACallback(num_images=-1, save_pictures=False)
        fit(tmp_path, module, labels, explaining)
        direct = IBA(layer, objective=objective)
        found = explaining.attributor
        assert (found.objective, found.beta, found.explains_class) == (
            direct.objective,
            direct.beta,
            direct.explains_class,
        )


def test_class_names_of_the_module_are_taken_with_class_indices(tmp_path):
    class Named(MultiClass):
        class_names = ("a", "b", "c")

    explaining = Kept(IBA("2", steps=2, objective="softmax_cross_entropy"), num_images=-1)
    fit(tmp_path, Named, (INDEX,), explaining)
    assert [shown.target_name for shown in explaining.shown] == ["abc"[k] for k in INDEX]


def test_an_empty_list_of_class_names_makes_labels_of_0_and_1_a_score(tmp_path):
    class Score(Regression):
        class_names = ()

    explaining = Kept(IBA("2", steps=2, objective="deviation"), num_images=-1)
    fit(tmp_path, Score, (torch.tensor([0.0, 1, 1, 0, 1, 0]),), explaining)
    assert {shown.target for shown in explaining.shown} == {None}


def test_what_fits_no_kind_stops_before_the_first_step(tmp_path):
    class ThreeScores(MultiLabel):
        def training_step(self, batch, batch_idx):
            raise AssertionError("a step was taken")

    with pytest.raises(MisconfigurationException, match=r"outputs of shape \('B', 3\).*from 0 to 4.*class_names"):
        fit(tmp_path, ThreeScores, (4.0 * MULTI_HOT,), IBACallback(IBA("2")))


def test_processes_that_see_different_labels_decide_together():
    low = Seen((1,), (), False, 0.0, 1.0, True)
    high = Seen((1,), (), False, 0.0, 7.5, False)
    assert infer([low]).kind == "binary"
    assert infer([low, high]).kind == infer([high, low]).kind == "score"


def test_log_odds_are_those_of_the_softmax_in_double_precision():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * 4
    p = logits.double().softmax(1)
    torch.testing.assert_close(log_odds(logits).double(), (p / (1 - p)).log(), rtol=1e-4, atol=1e-4)


def test_class_indices_become_rows_and_negative_ones_unknown():
    batch, exclusive = with_class_labels({"label": torch.tensor([[2], [-1]])}, 3)
    assert exclusive and batch["label"][0].tolist() == [0, 0, 1] and batch["label"][1].isnan().all()
    with pytest.raises(MisconfigurationException, match="class index 3, but there are 3 classes"):
        with_class_labels({"label": torch.tensor([3])}, 3)
