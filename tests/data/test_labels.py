"""What follows from labels alone: a permutation of the training labels, and the order of display."""

import pytest
import torch

from lightning_chex.data import LungDataModule, SyntheticDataModule
from lightning_chex.data.labels import varied_order


@pytest.mark.parametrize("target", ["pathologies", "severity"])
def test_training_labels_are_permuted_and_nothing_else_changes(target):
    sizes = {"num_train": 40, "num_val": 6, "num_test": 6, "size": 32, "batch_size": 40, "target": target}
    plain, shuffled = SyntheticDataModule(**sizes), SyntheticDataModule(**sizes, shuffle_labels=True)
    before, after = plain.dataset("train"), shuffled.dataset("train")
    assert not torch.equal(before.labels, after.labels)
    assert sorted(before.labels.tolist()) == sorted(after.labels.tolist())
    assert torch.equal(after.labels, SyntheticDataModule(**sizes, shuffle_labels=True).dataset("train").labels)
    (batch,) = shuffled.train_dataloader()
    place = {name: i for i, name in enumerate(before.image_ids)}
    order = [place[name] for name in batch["image_id"]]
    assert torch.equal(batch["label"], after.labels[order])  # the label a sample carries is the one that is listed
    assert torch.equal(batch["image"][0], before[order[0]]["image"])
    for split in ("val", "test"):
        assert torch.equal(plain.dataset(split).labels, shuffled.dataset(split).labels)
    # what is evaluated is the same data
    assert plain.fingerprint() == shuffled.fingerprint()


def test_weights_of_classes_stay_as_they_are():
    sizes = {"num_train": 60, "num_val": 2, "num_test": 2, "size": 32}
    plain, shuffled = SyntheticDataModule(**sizes), SyntheticDataModule(**sizes, shuffle_labels=True)
    assert torch.equal(plain.pos_weight, shuffled.pos_weight)


def test_masks_are_no_labels(tmp_path):
    with pytest.raises(ValueError, match="not supported for segmentation"):
        LungDataModule(str(tmp_path), layout="montgomery", shuffle_labels=True)


def test_any_first_samples_show_the_variety():
    labels = (torch.rand(200, 8, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    order = varied_order(labels)
    assert sorted(order) == list(range(200))
    assert labels[order[:8]].any(dim=0).all()
    first_empty = next(i for i, row in enumerate(order) if not labels[row].any())
    assert not labels[order[first_empty:]].any()

    scores = torch.rand(37, generator=torch.Generator().manual_seed(0))
    order = varied_order(scores)
    assert sorted(order) == list(range(37))
    ranks = scores.argsort().argsort()[order[:5]]
    assert ranks.tolist() == [0, 36, 18, 9, 27]
    assert varied_order(torch.zeros(0)) == [] and varied_order(torch.zeros(1)) == [0]
