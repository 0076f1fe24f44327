import warnings

import pytest
import torch
import torch.multiprocessing as mp

from lightning_chex.attribution import FeatureStatistics


def collect(batches):
    statistics = FeatureStatistics()
    for batch in batches:
        statistics.update(batch)
    return statistics


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 7, 7, 7, 7, 5], [39, 1]])
def test_any_batching_gives_the_moments_of_all_images_at_once(sizes):
    # a large offset: sums of squares in float32 would lose every digit of the deviation
    features = torch.randn(40, 3, 5, 4) * torch.rand(3, 5, 4) + 1000
    statistics = collect(features.split(sizes))
    variance, mean = torch.var_mean(features.double(), dim=0)
    assert statistics.count == 40
    torch.testing.assert_close(statistics.mean, mean.float())
    torch.testing.assert_close(statistics.std, variance.sqrt().float())


def test_merging_parts_gives_the_whole_in_any_order():
    features = torch.randn(30, 2, 3, 3) + 5
    whole = collect([features])
    parts = [collect([part]) for part in features.split([4, 15, 11])]
    merged = FeatureStatistics()
    for part in reversed(parts):
        merged.merge(part)
    merged.merge(FeatureStatistics())
    assert merged.count == 30
    torch.testing.assert_close(merged.mean, whole.mean)
    torch.testing.assert_close(merged.std, whole.std)
    assert torch.equal(merged.active, whole.active)


def test_neurons_that_never_vary_or_hardly_ever_fire_are_not_active():
    features = torch.rand(200, 4, 1, 1) + 0.5
    features[:, 1] = 0  # dead
    features[:, 2] = 3  # constant
    features[:, 3] = 0
    features[:2, 3] = 1  # fires in 1 % of the images
    assert collect([features]).active.flatten().tolist() == [True, False, False, False]
    features[:3, 3] = 1
    assert collect([features]).active.flatten().tolist() == [True, False, False, True]


def test_what_inference_mode_made_can_be_used_outside_of_it():
    statistics = FeatureStatistics()
    with torch.inference_mode():
        statistics.update(torch.randn(4, 2, 3, 3))
        statistics.update(torch.randn(4, 2, 3, 3))
    leaf = torch.zeros(2, 3, 3, requires_grad=True)
    ((leaf - statistics.mean) / statistics.std).sum().backward()
    assert torch.isfinite(leaf.grad).all()


def test_low_precision_features_are_widened_before_they_are_summed():
    features = torch.randn(64, 2, 4, 4).bfloat16()
    variance, mean = torch.var_mean(features.double(), dim=0)
    statistics = collect(features.split(8))
    torch.testing.assert_close(statistics.mean, mean.float())
    torch.testing.assert_close(statistics.std, variance.sqrt().float())


def test_state_survives_a_round_trip_as_plain_tensors(tmp_path):
    statistics = collect(torch.randn(20, 3, 4, 4).split(6))
    torch.save(statistics.state_dict(), tmp_path / "statistics.pt")
    loaded = FeatureStatistics.from_state_dict(torch.load(tmp_path / "statistics.pt", weights_only=True))
    assert loaded.count == 20
    assert torch.equal(loaded.mean, statistics.mean)
    assert torch.equal(loaded.std, statistics.std)
    assert torch.equal(loaded.active, statistics.active)


def test_bad_features_are_refused_and_change_nothing():
    statistics = collect([torch.randn(5, 2, 3, 3)])
    before = statistics.mean
    with pytest.raises(ValueError, match="one size"):
        statistics.update(torch.randn(5, 2, 4, 4))
    bad = torch.randn(5, 2, 3, 3)
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        statistics.update(bad)
    assert statistics.count == 5
    assert torch.equal(statistics.mean, before)


def test_one_image_has_no_deviation():
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        _ = collect([torch.randn(1, 2, 3, 3)]).std


def _synchronized(rank, features, store, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    statistics = FeatureStatistics()
    if rank == 0:  # the other process saw no image at all
        statistics.update(features)
    statistics.synchronize()
    results[rank] = statistics.state_dict()
    torch.distributed.destroy_process_group()


def test_processes_share_what_they_saw_even_if_one_saw_nothing(tmp_path):
    features = torch.randn(9, 2, 3, 3)
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_synchronized, args=(features, tmp_path / "store", results), nprocs=2)
        states = [results[0], results[1]]
    for state in states:
        found = FeatureStatistics.from_state_dict(state)
        assert found.count == 9
        torch.testing.assert_close(found.std, features.std(0))


@pytest.mark.parametrize("sizes", [[12], [5, 4, 3], [1] * 12])
def test_statistics_per_channel_are_those_of_all_places_together(sizes):
    features = torch.randn(12, 3, 5, 4) * torch.rand(3, 1, 1) + torch.arange(3.0)[:, None, None] * 100
    statistics = FeatureStatistics("channel")
    for batch in features.split(sizes):
        statistics.update(batch)
    variance, mean = torch.var_mean(features.double(), dim=(0, 2, 3), keepdim=True)
    torch.testing.assert_close(statistics.mean, mean[0].float())
    torch.testing.assert_close(statistics.std, variance[0].sqrt().float())
    halves = collect_per_channel(features[:7]).merge(collect_per_channel(features[7:]))
    torch.testing.assert_close(halves.std, variance[0].sqrt().float())
    with pytest.raises(ValueError, match="per neuron do not merge with statistics per channel"):
        halves.merge(collect([features]))


def collect_per_channel(features):
    statistics = FeatureStatistics("channel")
    statistics.update(features)
    return statistics


@pytest.mark.parametrize("per", ["neuron", "channel"])
def test_a_safetensors_file_holds_everything(per, tmp_path):
    statistics = FeatureStatistics(per)
    statistics.update(torch.randn(60, 3, 4, 4))
    statistics.save(tmp_path / "layer.safetensors")
    loaded = FeatureStatistics.load(tmp_path / "layer.safetensors")
    assert (loaded.count, loaded.per, loaded.shape) == (60, per, (3, 4, 4))
    for name in ("mean", "std", "active"):
        assert torch.equal(getattr(loaded, name), getattr(statistics, name))
    loaded.update(torch.randn(5, 3, 4, 4))  # it can go on where it was
    assert loaded.count == 65


def test_too_few_images_are_warned_of():
    with pytest.warns(UserWarning, match="rest on 49 images only; 50 or more"):
        collect([torch.randn(49, 1, 2, 2)]).check_fitted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collect([torch.randn(50, 1, 2, 2)]).check_fitted()
