"""What every method accepts as model, images, target and rows, and the one error for anything else."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_models import Dynamic, Static
from torch import nn
from unchanged import unchanged

from lightning_chex.attribution import (
    IBA,
    LRP,
    EveryPixel,
    ExpectedGradients,
    GradCAM,
    GradCAMPlusPlus,
    Gradient,
    InputIBA,
    IntegratedGradients,
    InverseIBA,
    MultiLayerIBA,
    NotFiniteError,
    PriorMap,
    RandomMap,
    SharedIBA,
    SmoothGrad,
)
from lightning_chex.attribution.network.outputs import output_tensor, tensor_output

pytestmark = pytest.mark.filterwarnings("ignore:.*feature statistics rest on.*", "ignore:.*cannot be cut.*")

METHODS = {
    "IBA": lambda: IBA("body", steps=2),
    "InverseIBA": lambda: InverseIBA("body", steps=2),
    "MultiLayerIBA": lambda: MultiLayerIBA(["stem", "body"], steps=2),
    "SharedIBA": lambda: SharedIBA(["stem", "body"], steps=2),
    "InputIBA": lambda: InputIBA("body", steps=2),
    "GradCAM": lambda: GradCAM("body"),
    "GradCAMPlusPlus": lambda: GradCAMPlusPlus("body"),
    "Gradient": Gradient,
    "SmoothGrad": lambda: SmoothGrad(samples=2),
    "IntegratedGradients": lambda: IntegratedGradients(baseline=[0.0], steps=2),
    "ExpectedGradients": lambda: ExpectedGradients(4, 4),
    "LRP": LRP,
    "EveryPixel": EveryPixel,
    "RandomMap": RandomMap,
    "PriorMap": lambda: PriorMap(torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))),
}
CONTROLS = ("EveryPixel", "RandomMap", "PriorMap")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Static()


@pytest.fixture(scope="module", params=METHODS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def method(name, model):
    return METHODS[name]().fit(model, [torch.randn(12, 1, 16, 16, generator=torch.Generator().manual_seed(2))])


@pytest.fixture
def images():
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([2, 0, 1])


def test_targets_of_any_integer_type_mean_the_same(method, model, images):
    expected = method.attribute(model, images, TARGET)
    whole = [torch.uint8, torch.int8, torch.int16, torch.int32]
    given = [*(TARGET.to(dtype) for dtype in whole), [2, 0, 1], (2, 0, 1), np.array([2, 0, 1], np.uint16)]
    for target in given:
        assert torch.equal(method.attribute(model, images, target), expected)
    for one in (2, np.int64(2), torch.tensor(2)):
        same_class = method.attribute(model, images, one)
        assert same_class.shape == expected.shape and torch.equal(same_class[0], expected[0])
    several = method.attribute(model, images, [[2, 1], [0, 1], [1, 1]])
    assert several.shape == (3, 2, 16, 16)
    torch.testing.assert_close(several[:, 0], expected, rtol=1e-4, atol=1e-6)
    rows = method.attribute(model, images, [1, 2], [2, 0])
    torch.testing.assert_close(rows, expected[[2, 0]], rtol=1e-4, atol=1e-6)


BAD = {
    "model: function": ({"model": torch.relu}, TypeError, r"model is a builtin_function.*give a torch\.nn\.Module"),
    "images: array": ({"images": np.zeros((3, 1, 16, 16))}, TypeError, r"images are a ndarray: give a float tensor"),
    "images: one": ({"images": torch.zeros(1, 16, 16)}, ValueError, r"images have shape \(1, 16, 16\).*images\[None\]"),
    "images: rank": ({"images": torch.zeros(3, 9)}, ValueError, r"images have shape \(3, 9\), not \(B, C, H, W\)"),
    "images: bytes": (
        {"images": torch.zeros(3, 1, 16, 16, dtype=torch.uint8)}, ValueError, r"images have dtype torch\.uint8.*floats",
    ),
    "images: device": ({"images": torch.zeros(3, 1, 16, 16, device="meta")}, ValueError, r"on meta.*images\.to"),
    "images: no row": ({"images": torch.zeros(3, 1, 0, 16)}, ValueError, r"shape \(3, 1, 0, 16\): every side"),
    "images: nan": ({"images": torch.full((3, 1, 16, 16), torch.nan)}, NotFiniteError, "image 0 .*inspect the data"),
    "images: inf": ({"images": torch.full((3, 1, 16, 16), torch.inf)}, NotFiniteError, "image 0 .*inspect the data"),
    "target: text": ({"target": "Mass"}, TypeError, r"target='Mass' is a str.*give class indices"),
    "target: texts": ({"target": ["Mass"] * 3}, TypeError, r"target=\['Mass', .*give class indices"),
    "target: ragged": ({"target": [[0], [1, 2], [0]]}, TypeError, r"target=\[\[0\], .*give class indices"),
    "target: object": ({"target": object()}, TypeError, r"target=<object .*give class indices"),
    "target: bool": ({"target": torch.tensor([True] * 3)}, ValueError, r"target has dtype torch\.bool: give class"),
    "target: complex": ({"target": TARGET + 1j}, ValueError, r"target has dtype torch\.complex64: give class"),
    "target: nan": ({"target": torch.full((3,), torch.nan)}, ValueError, "target holds NaN.*leave out"),
    "target: few": ({"target": [0, 1]}, ValueError, r"target has shape \(2,\); 3 images need \(3,\)"),
    "target: rank": ({"target": torch.zeros(3, 1, 1).long()}, ValueError, r"target has shape \(3, 1, 1\)"),
    "rows: float": ({"rows": [0.0, 1.0, 2.0]}, ValueError, r"rows must be integers \(N,\)"),
    "rows: bool": ({"rows": torch.tensor([True] * 3)}, ValueError, r"rows has dtype torch\.bool"),
    "rows: text": ({"rows": "first"}, TypeError, r"rows='first' is a str"),
    "rows: beyond": ({"rows": [0, 1, 3]}, ValueError, "rows must lie between 0 and 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_one_clear_error(method, model, images, case):
    changed, error, message = BAD[case]
    arguments = {"model": model, "images": images, "target": TARGET} | changed
    with unchanged(model), pytest.raises(error, match=message) as raised:
        method.attribute(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("target", [[0, 1, 3], [0, -1, 1], [0.0, 1.0, 2.0], None])
def test_targets_that_the_model_does_not_have_are_refused(name, method, model, images, target):
    if name in CONTROLS:
        pytest.skip("a control does not run the model")
    with unchanged(model), pytest.raises(ValueError, match="target|outputs|index"):
        method.attribute(model, images, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_are_converted_to_the_precision_of_the_weights(method, model, images, dtype):
    found = method.attribute(model, images.to(dtype), TARGET)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, method.attribute(model, images.to(dtype).float(), TARGET), rtol=0, atol=0)


def test_an_empty_batch_has_no_maps(method, model, images):
    nothing = torch.zeros(0, dtype=torch.long)
    for target in (nothing, [], None):
        assert method.attribute(model, images[:0], target).shape == (0, 16, 16)
    assert method.attribute(model, images, [], []).shape == (0, 16, 16)


@dataclass
class Answer:
    """As the models of transformers return."""

    logits: torch.Tensor
    hidden: torch.Tensor


FORMS = {
    "tuple": lambda output: (output,),
    "list": lambda output: [output],
    "dict": lambda output: {"out": output, "aux": None},
    "logits in a dict": lambda output: {"logits": output, "hidden": 2 * output},
    "dataclass": lambda output: Answer(output, 2 * output),
}
REFUSED = {
    "two tensors": (lambda output: (output, output), "a tuple of 2"),
    "two keys": (lambda output: {"a": output, "b": output}, "a dict with the keys a, b"),
    "nested": (lambda output: [[output]], "a list of 1"),
    "text": (lambda output: "abnormal", "a str"),
    "nothing": (lambda output: None, "a NoneType"),
    "integers": (lambda output: output.argmax(1), r"dtype torch\.int64"),
}


def shaped(model, base, form):
    """The same network, whose class returns its output in another form."""

    class Formed(base):
        def forward(self, x):
            return form(super().forward(x))

    network = Formed()
    network.load_state_dict(model.state_dict())
    return network


@pytest.mark.parametrize("base", [Static, Dynamic])  # cut by torch.fx, and replayed
@pytest.mark.parametrize("form", FORMS)
def test_an_output_that_holds_one_tensor_is_explained(method, model, images, base, form):
    network = shaped(model, base, FORMS[form])
    expected = method.attribute(shaped(model, base, lambda output: output), images, TARGET)
    with unchanged(network):
        found = method.attribute(network, images, TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", REFUSED)
def test_an_output_that_does_not_tell_what_is_explained_is_refused(name, method, model, images, form):
    network = shaped(model, Static, REFUSED[form][0])
    if name in CONTROLS:
        assert method.attribute(network, images, TARGET).shape == (3, 16, 16)
        return
    with unchanged(network), pytest.raises(ValueError, match=f"the model's output (is|has) {REFUSED[form][1]}"):
        method.attribute(network, images, TARGET)


def test_a_forward_replaced_on_the_object_is_the_one_explained(model, images):
    network = shaped(model, Static, lambda output: output)
    plain = network.forward
    network.forward = lambda x: plain(x).flip(1)
    fitted = IBA("body", steps=2).fit(network, [torch.randn(12, 1, 16, 16)])
    own = network.__dict__["forward"]
    found = fitted.attribute(network, images, 0)
    assert network.__dict__["forward"] is own
    torch.testing.assert_close(found, fitted.attribute(model, images, 2), rtol=1e-4, atol=1e-6)


def test_batches_to_learn_from_are_checked_too(model):
    with pytest.raises(TypeError, match="images are a tuple: give a float tensor"):
        IBA("body").fit(model, [(torch.zeros(3, 1, 16, 16), torch.zeros(3))])
    with pytest.raises(ValueError, match="images have dtype torch.uint8"):
        IBA("body").fit(model, [torch.zeros(3, 1, 16, 16, dtype=torch.uint8)])


def test_the_replaced_forward_is_taken_back_after_an_exception():
    network = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError), tensor_output(network):
        assert "forward" in network.__dict__
        raise ZeroDivisionError
    assert "forward" not in network.__dict__
    assert output_tensor({"logits": torch.ones(1), "loss": torch.zeros(1)}) == 1
