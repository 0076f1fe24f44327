"""Each image counts once, whatever sampler shares the images out."""

from types import SimpleNamespace

import pytest
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSamplerWrapper
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, SubsetRandomSampler

from lightning_chex.data import DataError
from lightning_chex.data.images.unreadable import ReadableLoader, SkipUnreadable, collate_readable
from lightning_chex.tasks import unrepeated_rows

pytestmark = pytest.mark.filterwarnings("ignore:unreadable image", "ignore:.*UntypedStorage")


class Images:
    """Numbers as samples, one of which cannot be read."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.image_ids = [str(i) for i in range(count)]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> dict:
        if index == self.bad:
            raise DataError(f"cannot read image {index}")
        return {"image_id": self.image_ids[index]}


def trainer_of(processes: int, *loaders) -> SimpleNamespace:
    """What of a Trainer says which loaders it has, in a validation."""
    loop = SimpleNamespace(_combined_loader=SimpleNamespace(flattened=list(loaders)))
    return SimpleNamespace(world_size=processes, _active_loop=loop)


def counted(processes: int, loaders) -> list[int]:
    """Numbers of all images that count, by all processes."""
    numbers = []
    for loader in loaders:
        for i, batch in enumerate(loader):
            names = batch["image_id"] if isinstance(batch, dict) else batch
            rows = unrepeated_rows(trainer_of(processes, None, loader), batch, len(names), i, 1)
            assert rows.shape == (len(names),)
            numbers += [int(name) for name, own in zip(names, rows.tolist(), strict=True) if own]
    return sorted(numbers)


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_image_counts_once(processes, count, batch_size):
    images = list(range(count))
    samplers = {
        "in order": lambda rank: DistributedSampler(images, processes, rank, shuffle=False),
        "shuffled": lambda rank: DistributedSampler(images, processes, rank, shuffle=True),
        "of a sampler": lambda rank: DistributedSamplerWrapper(
            SequentialSampler(images), num_replicas=processes, rank=rank, shuffle=False
        ),
    }
    if count >= processes:
        samplers["without repeats"] = lambda rank: UnrepeatedDistributedSamplerWrapper(
            SequentialSampler(images), num_replicas=processes, rank=rank, shuffle=False
        )
    for sampler in samplers.values():
        assert (
            counted(processes, [DataLoader(images, batch_size, sampler=sampler(r)) for r in range(processes)]) == images
        )


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("bad", range(7))
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_unreadable_images_do_not_shift_what_counts(processes, bad, batch_size):
    loaders = []
    for rank in range(processes):
        dataset = SkipUnreadable(Images(7, bad), "val split", replace=False)
        sampler = DistributedSampler(dataset, processes, rank, shuffle=False)
        loaders.append(ReadableLoader(dataset, batch_size, sampler=sampler, collate_fn=collate_readable))
    assert counted(processes, loaders) == [i for i in range(7) if i != bad]


def test_samplers_of_unknown_order_are_left_alone():
    class Reversed(DistributedSampler):
        def __iter__(self):
            return reversed(list(super().__iter__()))

    class Other(BatchSampler):
        pass

    images = list(range(3))
    own = DistributedSampler(images, 2, 1, shuffle=False)
    for loader in (
        DataLoader(images, 2, sampler=Reversed(images, 2, 1, shuffle=False)),
        DataLoader(images, batch_sampler=Other(own, 2, drop_last=False)),
        DataLoader(images, 2, sampler=SubsetRandomSampler(images)),
        DataLoader(images, batch_size=None),
        images,
    ):
        assert unrepeated_rows(trainer_of(2, loader), None, 2, 0).tolist() == [True, True]
    assert unrepeated_rows(trainer_of(2, DataLoader(images, 2, sampler=own)), None, 2, 0).tolist() == [True, False]
