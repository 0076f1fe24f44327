"""Tiny networks whose explanations are known or cheap to compute."""

import torch
from torch import Tensor, nn


class Patchwork(nn.Module):
    """Reads the mean of one patch of the features and nothing else: logit 0 from the patch, logit 1 constant."""

    def __init__(self, rows: slice, columns: slice, gain: float = 4.0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Identity())
        self.rows, self.columns, self.gain = rows, columns, gain

    def forward(self, x: Tensor) -> Tensor:
        patch = self.features(x)[:, :, self.rows, self.columns].mean((1, 2, 3))
        return torch.stack([self.gain * patch, torch.zeros_like(patch)], 1)


class Dynamic(nn.Module):
    """Its forward branches on a value, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.body = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        if x.sum() > -1:  # always true, but only a run can tell
            x = self.body(x)
        return self.head(torch.relu_(x).mean((2, 3)))


class Static(Dynamic):
    """The same network without the branch."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.relu(self.stem(x)))
        return self.head(torch.relu_(x).mean((2, 3)))  # in place, right behind the layer


class Unrepeatable(Dynamic):
    """It hands a tuple from module to module, which is neither traced nor replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        x, doubled = self.pair(torch.relu(self.stem(x)))
        if doubled.sum() > -1:
            x = self.body(x)
        return self.head(torch.relu_(x).mean((2, 3)))


class Pair(nn.Module):
    """A tensor and twice itself."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, 2 * x


class Skip(nn.Module):
    """A value made below the layer is used above it, and so is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.stem(x))
        z = self.inner(y)
        return self.head((z * self.scale + y).mean((2, 3))) + x.mean((1, 2, 3))[:, None]


class Regressor(nn.Module):
    """One score per image, (B, 1) or (B,)."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(5, 1)
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        score = self.head(self.body(x).mean((2, 3)))
        return score[:, 0] if self.flat else score


class EitherCue(nn.Module):
    """Two patches, each of which alone is enough: the logit follows the stronger one."""

    def __init__(self, first: tuple[slice, slice], second: tuple[slice, slice]) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.cues = (first, second)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x)
        strength = torch.stack([f[:, :, rows, columns].mean((1, 2, 3)) for rows, columns in self.cues], 1)
        return 6 * strength.max(1, keepdim=True).values - 3


class OneCell(nn.Module):
    """A linear model: the score is ``weight`` times one cell of a single channel."""

    def __init__(self, weight: float, row: int, column: int) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.weight, self.row, self.column = weight, row, column

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.features(x)[:, 0, self.row, self.column]
