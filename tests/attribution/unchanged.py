"""Whether a model was left as it was found, to the last bit and the last hook."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def snapshot(model: nn.Module) -> dict:
    """All that an attribution could leave behind on a model."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "identities": [(name, id(p), p.data_ptr(), p.requires_grad, p.grad) for name, p in model.named_parameters()],
        "buffers": [(name, id(b), b.data_ptr()) for name, b in model.named_buffers()],
        "modules": [(name, id(m), m.training, sorted(m.__dict__)) for name, m in model.named_modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks))
            for m in model.modules()
        ],
        "bias": [(name, m.bias is None) for name, m in model.named_modules() if hasattr(m, "bias")],
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fail if anything about the model, the random state or autograd's state is different afterwards."""
    before, random, grad = snapshot(model), torch.get_rng_state(), torch.is_grad_enabled()
    yield
    after = snapshot(model)
    values, former = after.pop("values"), before.pop("values")
    assert values.keys() == former.keys()
    for name, value in values.items():
        assert torch.equal(value, former[name]), name
    assert after == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled() == grad
