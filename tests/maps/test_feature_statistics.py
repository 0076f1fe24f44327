"""Statistics for several attributors at once: each layer once, from where they may come from."""

import pytest
import torch
from torch import nn

from lightning_chex.attribution import IBA, GradCAM, InverseIBA, MultiLayerIBA
from lightning_chex.data import SyntheticDataModule
from lightning_chex.data.adapter import adapted
from lightning_chex.maps import feature_statistics, training_batches

IMAGE = torch.zeros(1, 3, 16, 16)


class ObservedRows(nn.Sequential):
    """A network of three feature maps that counts its forward passes."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(4, 2),
        )  # fmt: skip
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        return super().forward(images)


def images(seed, count=60):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def family():
    return {
        "one": IBA(layer="0"),
        "inverse": InverseIBA(layer="0"),
        "pooled": IBA(layer="2", statistics_per="channel"),
        "several": MultiLayerIBA(layers=["0", "1", "2"]),
        "cam": GradCAM(layer="2"),
    }


def equal(member, features):
    torch.testing.assert_close(member.statistics.mean, features.mean(0))
    torch.testing.assert_close(member.statistics.std, features.std(0))


def test_one_pass_fits_all_layers_to_the_features_mean_and_deviation():
    network, attributors, seen = ObservedRows().eval(), family(), images(1)
    fitted = feature_statistics(network, attributors, batches=lambda: seen.split(20))
    assert network.passes == 3  # one a batch, however many attributors
    assert fitted.unfitted == {}
    source = {"images": 60, "from": "training split"}
    assert fitted.layers == {"0": source, "1": source, "2": source, "2 (per channel)": source}
    with torch.no_grad():
        first = network[0](seen)
        last = network[2](network[1](first))
    for member in (attributors["one"], attributors["inverse"], attributors["several"].members[0]):
        equal(member, first)
    equal(attributors["several"].members[2], last)
    pooled = attributors["pooled"].statistics
    torch.testing.assert_close(pooled.mean[:, 0, 0], last.mean((0, 2, 3)))


def saved_of(network, attributor, seed):
    state = attributor.fit(network, images(seed, 70).split(35)).state_dict()
    return type(attributor)(layer="0") if isinstance(attributor, IBA) else attributor, state


@pytest.mark.parametrize(("prefer", "count"), [("checkpoint", 70), ("training split", 60)])
def test_the_preferred_source_is_taken(prefer, count):
    network, iba = ObservedRows().eval(), IBA(layer="0")
    saved = [saved_of(network, IBA(layer="0"), 2)]
    before = network.passes
    fitted = feature_statistics(network, {"one": iba}, saved, lambda: images(1).split(20), prefer)
    assert fitted.layers == {"0": {"images": count, "from": prefer}} and iba.num_observed == count
    assert (network.passes == before) == (prefer == "checkpoint")  # what is at hand costs no pass


def test_what_the_checkpoint_lacks_comes_from_the_training_split_and_the_other_way_round():
    network = ObservedRows().eval()
    several = MultiLayerIBA(layers=["0", "1"])
    saved = [saved_of(network, several, 2)]
    attributors = {"one": IBA(layer="1"), "other": IBA(layer="2")}
    fitted = feature_statistics(network, attributors, saved, lambda: images(1).split(20), "checkpoint")
    assert {layer: entry["from"] for layer, entry in fitted.layers.items()} == {
        "1": "checkpoint", "2": "training split",
    }  # fmt: skip
    with torch.no_grad():
        equal(attributors["one"], network[1](network[0](images(2, 70))))

    alone = {"one": IBA(layer="1"), "other": IBA(layer="2"), "cam": GradCAM(layer="2")}
    fitted = feature_statistics(network, alone, saved)
    assert fitted.layers.keys() == {"1"} and fitted.unfitted.keys() == {"other"} and "2" in fitted.unfitted["other"]


def test_statistics_of_another_image_size_or_granularity_are_not_taken():
    network = ObservedRows().eval()
    saved = [saved_of(network, IBA(layer="0"), 2)]
    larger = torch.zeros(1, 3, 32, 32)
    assert feature_statistics(network, {"one": IBA(layer="0")}, saved, image=larger).unfitted
    assert feature_statistics(network, {"one": IBA(layer="0", statistics_per="channel")}, saved, image=IMAGE).unfitted
    assert not feature_statistics(network, {"one": IBA(layer="0")}, saved, image=IMAGE).unfitted


def test_a_fitted_attributor_keeps_what_it_has_and_a_wrong_layer_is_told():
    network = ObservedRows().eval()
    iba = IBA(layer="0").fit(network, images(3, 50).split(25))
    fitted = feature_statistics(
        network, {"own": iba, "wrong": IBA(layer="nowhere"), "flat": IBA(layer="4")}, [], lambda: [images(1)],
        image=IMAGE,
    )  # fmt: skip
    assert fitted.layers == {"0": {"images": 50, "from": "file"}} and iba.num_observed == 50
    assert "nowhere" in fitted.unfitted["wrong"] and "feature map" in fitted.unfitted["flat"]
    assert network.training is False and not network[0]._forward_hooks


def test_training_images_are_drawn_by_a_seed_and_not_augmented():
    data = SyntheticDataModule(num_train=12, num_val=2, num_test=2, size=32, batch_size=4, augment=True)
    data.setup("test")
    batches = training_batches(data, limit=6, seed=1)
    state = torch.get_rng_state()
    drawn = list(batches())
    assert torch.equal(state, torch.get_rng_state())
    assert [len(batch) for batch in drawn] == [4, 2]
    plain = data.parts()["train"]
    every = {plain[i]["image"].numpy().tobytes() for i in range(12)}
    found = {image.numpy().tobytes() for batch in drawn for image in batch}
    assert len(found) == 6 and found <= every
    assert torch.equal(torch.cat(drawn), torch.cat(list(batches())))
    assert not torch.equal(torch.cat(drawn), torch.cat(list(training_batches(data, limit=6, seed=2)())))
    assert training_batches(adapted(nn.Identity())) is None
