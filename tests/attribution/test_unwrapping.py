"""Networks as people wrap them are explained like the plain ones, and are left as they were."""

import shutil
import threading
from collections.abc import Callable

import pytest
import timm
import torch
import torch.distributed as dist
import torch.utils.checkpoint
import torchvision
from tiny_models import Skip, Static
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from unchanged import unchanged

from lightning_chex.attribution import (
    IBA,
    LRP,
    Attributor,
    GradCAM,
    Gradient,
    IntegratedGradients,
    InverseIBA,
    LayerError,
    MultiLayerIBA,
    frozen,
)
from lightning_chex.attribution.network.partition import partition
from lightning_chex.attribution.network.replay import ReplayPartition

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on", "error:.*cannot be cut at")

AOT_EAGER = {"backend": "aot_eager"}
INDUCTOR = pytest.param(
    {"backend": "inductor", "options": {"compile_threads": 1, "cpp.simdlen": 0}},  # the quickest to compile
    marks=pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler, g++"),
    id="inductor",
)


@pytest.fixture(autouse=True)
def compiled_anew():
    """No test runs, or counts, what another one has compiled."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """How many graphs were compiled so far."""
    return counters["stats"]["unique_graphs"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).train()


def images(count: int = 4, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, 16, 16, generator=torch.Generator().manual_seed(1))


def part_compiled_by_wrapper(model: nn.Module) -> nn.Module:
    model[1] = torch.compile(model[1], **AOT_EAGER)
    return model


def part_compiled_in_place(model: nn.Module) -> nn.Module:
    model[1].compile(**AOT_EAGER)
    return model


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(**AOT_EAGER)
    return model


def forward_compiled(model: nn.Module) -> nn.Module:
    model.forward = torch.compile(model.forward, **AOT_EAGER)
    return model


def part_checkpointed(model: nn.Module) -> nn.Module:
    model[1] = checkpoint_wrapper(model[1])
    return model


WRAPPINGS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch.compile": lambda model: torch.compile(model, **AOT_EAGER),
    "module.compile": compiled_in_place,
    "compiled forward": forward_compiled,
    "part wrapped by torch.compile": part_compiled_by_wrapper,
    "part compiled in place": part_compiled_in_place,
    "part checkpointed": part_checkpointed,
    "DataParallel": DataParallel,
    "AveragedModel": AveragedModel,
    "compiled DataParallel": lambda model: torch.compile(DataParallel(model), **AOT_EAGER),
    "averaged and part compiled": lambda model: AveragedModel(part_compiled_by_wrapper(model)),
    "fx.GraphModule": torch.fx.symbolic_trace,
}

METHODS: dict[str, Callable[[], Attributor]] = {
    "IBA": lambda: IBA("1.2", steps=2),
    "InverseIBA": lambda: InverseIBA("2.1", steps=2),
    "MultiLayerIBA": lambda: MultiLayerIBA(["1.1", "2.0"], beta=0.1, threshold=0.1, steps=2),
    "GradCAM": lambda: GradCAM("1.2"),
    "LRP": lambda: LRP(sign="signed"),
    "Gradient": Gradient,
    "IntegratedGradients": lambda: IntegratedGradients(steps=3),
}


def explained(method: Attributor, model: nn.Module, images: Tensor) -> Tensor:
    method.check(model)
    method.check(model, images[:1])
    method.fit(model, [images, images.flip(0) * 1.5])
    return method.attribute(model, images, torch.arange(len(images)) % 3)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_maps_of_a_wrapped_network_are_those_of_the_plain_one(wrapping):
    plain, wrapped = network(), WRAPPINGS[wrapping](network())
    for name, method in METHODS.items():
        with unchanged(wrapped):
            maps = explained(method(), wrapped, images())
        assert maps.abs().sum() > 0, name
        assert torch.equal(maps, explained(method(), plain, images())), name


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_wrapped_network_is_cut_by_its_graph(wrapping):
    """Not by a replay of its whole forward pass, which gives the same maps, only slower."""
    model = WRAPPINGS[wrapping](network())
    with frozen(model) as plain, torch.no_grad():
        parts = partition(plain, "1.1", images())
        assert not isinstance(parts, ReplayPartition)
        torch.testing.assert_close(parts.above(*parts.below(images())), plain(images()))


def test_features_are_observed_in_compiled_passes():
    """Also where they ran compiled before, and under inference mode, as in a validation."""
    plain, wrapped = network().eval(), torch.compile(network().eval(), **AOT_EAGER)
    statistics = []
    for model in (plain, wrapped):
        iba = IBA("1.1")
        with torch.inference_mode():
            model(images())
            with iba.observing(model):
                model(images())
        assert iba.num_observed == 4
        statistics.append(iba.state_dict())
    assert all(torch.equal(value, statistics[1][name]) for name, value in statistics[0].items())


@pytest.mark.parametrize("options", [pytest.param(AOT_EAGER, id="aot_eager"), INDUCTOR])
def test_nothing_is_compiled_for_an_explanation_nor_anew_after_it(options):
    plain, model = network(), torch.compile(network(), **options)
    iba = IBA("1", steps=2)

    def train(model: nn.Module) -> list[Tensor]:
        model.zero_grad()
        model(images()).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    before = train(model)
    compiled = graphs()
    assert compiled > 0
    model.eval()
    with torch.inference_mode(), iba.observing(model):
        model(images())
        iba.check(model, images())
    maps = iba.attribute(model, images(), torch.tensor([0, 1, 2, 0]))
    model.train()
    after = train(model)
    assert graphs() == compiled and maps.sum() > 0
    for first, second, reference in zip(before, after, train(plain), strict=True):
        assert torch.equal(first, second)  # the batch statistics count, not the running ones
        torch.testing.assert_close(first, reference)


@pytest.mark.parametrize("layer", ["2.0", "_orig_mod.2.0", "2._orig_mod.0", "module.2.0"])
def test_a_layer_may_be_called_with_the_wrappers_names_or_without(layer):
    model = DataParallel(network())
    model.module[2] = torch.compile(model.module[2], **AOT_EAGER)
    assert torch.equal(
        explained(IBA(layer, steps=2), model, images()), explained(IBA("2.0", steps=2), network(), images())
    )


def test_the_names_suggested_for_a_wrong_one_are_those_that_are_taken():
    model = torch.compile(timm.create_model("resnet18", num_classes=2), **AOT_EAGER)
    with pytest.raises(LayerError, match=r"layer='layr3' is not a module of ResNet; nearest names: layer3") as refused:
        IBA("layr3").check(model)
    for name in str(refused.value).split(": ")[-1].split(", "):
        IBA(name).check(model)


def test_a_name_that_is_a_wrappers_too_is_the_networks_own():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = network()

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.module(x)

    doubled = explained(GradCAM("module.2"), Named(), images())
    torch.testing.assert_close(doubled, 2 * explained(GradCAM("2"), network(), images()))


def test_a_distributed_network_is_explained_without_its_other_processes(tmp_path):
    """Its own forward pass would wait for processes that explain other, or no, images."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(network())
        model._sync_buffers = None  # would be called, and fail, in a forward pass of the wrapper
        for name, method in METHODS.items():
            assert torch.equal(explained(method(), model, images()), explained(method(), network(), images())), name
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, images())])
def test_torchscript_is_refused_where_a_layer_is_needed_and_explained_where_none_is(make):
    script = make(network().eval())
    for method in (IBA("2"), MultiLayerIBA(["1", "2"]), GradCAM("2")):
        with pytest.raises(LayerError, match="is TorchScript, whose features can be neither seen nor changed"):
            method.check(script)
    with pytest.raises(ValueError, match="LRP has no rule"):
        LRP().check(script)
    torch.testing.assert_close(explained(Gradient(), script, images()), explained(Gradient(), network(), images()))


def test_a_network_with_a_scripted_part_is_explained_at_its_other_layers():
    model = network().eval()
    model[1] = torch.jit.script(model[1])
    assert torch.equal(explained(IBA("2", steps=2), model, images()), explained(IBA("2", steps=2), network(), images()))
    with pytest.raises(LayerError, match=r"layer='1.1' is TorchScript"):
        IBA("1.1").check(model)


# gradient checkpointing


class Checkpointed(Static):
    """A tiny network that recomputes what lies above the stem, as people write it."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=self.reentrant)
        return torch.utils.checkpoint.checkpoint(self.top, x, use_reentrant=self.reentrant)

    def top(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(x).mean((2, 3)))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("layer", ["stem", "body"])
def test_checkpointed_passes_are_explained_like_others(reentrant, layer):
    torch.manual_seed(0)
    plain, model = Static(), Checkpointed(reentrant)
    model.load_state_dict(plain.state_dict())
    for method in (lambda: IBA(layer, steps=2), lambda: GradCAM(layer), LRP, Gradient):
        with unchanged(model):
            maps = explained(method(), model, images(channels=1))
        torch.testing.assert_close(maps, explained(method(), plain, images(channels=1)))
    model(images(channels=1)).sum().backward()
    assert torch.utils.checkpoint.checkpoint.__module__ == "torch.utils.checkpoint"
    assert model.head.weight.grad is not None


CHECKPOINTING = {
    "timm resnet18": (lambda: timm.create_model("resnet18", num_classes=3), "layer3"),
    "timm densenet121": (lambda: timm.create_model("densenet121", num_classes=3), "features.denseblock3"),
    "torchvision densenet121": (
        lambda: torchvision.models.densenet121(num_classes=3, memory_efficient=True),
        "features.denseblock3",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTING)
def test_networks_that_save_memory_by_recomputing_are_explained_like_those_that_do_not(name):
    build, layer = CHECKPOINTING[name]
    torch.manual_seed(0)
    model = build()
    inputs = torch.randn(4, 3, 32, 32)

    def switch(on: bool) -> None:
        if name.startswith("timm"):
            model.set_grad_checkpointing(on)
        else:
            for module in model.modules():
                if hasattr(module, "memory_efficient"):
                    module.memory_efficient = on

    maps = []
    for on in (True, False):
        switch(on)
        iba = IBA(layer, steps=2)
        with unchanged(model):
            maps.append(explained(iba, model, inputs))
        with torch.inference_mode(), frozen(model), iba.observing(model):
            model(inputs)
        assert iba.num_observed == 4
    assert torch.equal(*maps)


def test_checkpointing_is_switched_on_again_after_an_exception():
    model = timm.create_model("resnet18", num_classes=2)
    model.set_grad_checkpointing(True)
    model.layer1.compile(**AOT_EAGER)
    model.layer2 = torch.compile(model.layer2, **AOT_EAGER)
    settings = {name: value for name, value in vars(torch.utils.checkpoint).items() if name[0] != "_" or name[1] != "_"}
    with unchanged(model), pytest.raises(ValueError, match="halfway"), frozen(model) as plain:
        assert not plain.grad_checkpointing and type(plain.layer2) is nn.Sequential
        raise ValueError("halfway")
    assert model.grad_checkpointing and model.layer1._compiled_call_impl is not None
    after = vars(torch.utils.checkpoint)
    assert all(after[name] is value for name, value in settings.items())


def test_compiled_code_is_back_when_the_last_thread_has_left():
    """Threads that do not leave in the order they came must not leave compilation off."""
    compiled = torch.compile(Skip().eval(), **AOT_EAGER)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with frozen(network()):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    with frozen(network()):
        thread.start()
        assert entered.wait(60)
    compiled(images(channels=2))
    assert graphs() == 0  # the thread is inside still
    leave.set()
    thread.join()
    compiled(images(channels=2))
    assert graphs() > 0


def test_an_explanation_inside_compiled_code_is_refused_with_the_remedy_for():
    model = network()

    @torch.compile(**AOT_EAGER)
    def inside(x: Tensor) -> Tensor:
        return outer(x) + 1

    def outer(x: Tensor) -> Tensor:
        with frozen(model) as plain:
            return x + plain(images()).sum()

    with pytest.raises(RuntimeError, match=r"@torch.compiler.disable"):
        inside(torch.zeros(()))
    outer = torch.compiler.disable(outer)
    assert torch.isfinite(inside(torch.zeros(())))
