import pytest
import torch
from torch import nn

from lightning_chex.attribution import IBA, OBJECTIVES

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -4.0]], dtype=torch.float64)
TARGET = torch.tensor([2, 1])


def test_binary_cross_entropy_looks_at_the_explained_class_alone():
    expected = -torch.sigmoid(torch.tensor([0.5, 3.0], dtype=torch.float64)).log()
    torch.testing.assert_close(OBJECTIVES["binary_cross_entropy"](LOGITS, TARGET, LOGITS), expected)


def test_one_hot_binary_cross_entropy_is_the_mean_over_all_outputs():
    wanted = torch.tensor([[0.0, 0, 1], [0, 1, 0]], dtype=torch.float64)
    expected = nn.BCELoss(reduction="none")(LOGITS.sigmoid(), wanted).mean(1)
    torch.testing.assert_close(OBJECTIVES["one_hot_binary_cross_entropy"](LOGITS, TARGET, LOGITS), expected)


def test_softmax_cross_entropy_is_minus_the_log_probability():
    expected = -(LOGITS.exp()[[0, 1], TARGET] / LOGITS.exp().sum(1)).log()
    torch.testing.assert_close(OBJECTIVES["softmax_cross_entropy"](LOGITS, TARGET, LOGITS), expected)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_regression_objectives_by_hand(shape):
    output, reference = torch.tensor([1.0, -2.0, 3.0]).view(shape), torch.tensor([1.0, 1.0, 5.0]).view(shape)
    score = torch.tensor([0.0, 2.0, 3.5])
    assert OBJECTIVES["squared_error"](output, score, reference).tolist() == [1.0, 16.0, 0.25]
    assert OBJECTIVES["maximize_score"](output, None, reference).tolist() == [-1.0, -4.0, -9.0]
    assert OBJECTIVES["deviation"](output, None, reference).tolist() == [0.0, 9.0, 4.0]


def test_wrong_targets_and_outputs_are_named():
    with pytest.raises(ValueError, match="target=None"):
        OBJECTIVES["binary_cross_entropy"](LOGITS, None, LOGITS)
    with pytest.raises(ValueError, match="integer class indices"):
        OBJECTIVES["softmax_cross_entropy"](LOGITS, torch.tensor([0.0, 1.0]), LOGITS)
    with pytest.raises(ValueError, match="target=None.*score itself"):
        OBJECTIVES["squared_error"](LOGITS[:, :1], None, LOGITS[:, :1])
    with pytest.raises(ValueError, match=r"shape \(2, 3\); regression"):
        OBJECTIVES["deviation"](LOGITS, None, LOGITS)
    with pytest.raises(ValueError, match="objective='mse' is unknown.*squared_error"):
        IBA(objective="mse")
