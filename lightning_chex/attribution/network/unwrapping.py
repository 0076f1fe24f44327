"""The network as it is explained: out of its wrappers, not compiled, nothing computed twice, its weights frozen."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from lightning_chex.attribution.network.recomputed import plain_weights

_MODULE_WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)
"""They compute what their ``module`` computes."""

OWN_NAMES = ("_orig_mod", "_checkpoint_wrapped_module")
"""What ``torch.compile`` and ``checkpoint_wrapper`` call the only module inside them; nobody else uses these names."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside a wrapper that computes the same; any other module as it is.

    Wrappers are ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel`` (whose averaged
    weights are the network's) and ``checkpoint_wrapper``, in any number.
    """
    while True:
        inside = next((name for name in OWN_NAMES if name in model._modules and len(model._modules) == 1), None)
        if inside is None and not isinstance(model, _MODULE_WRAPPERS):
            return model
        model = model._modules[inside or "module"]  # type: ignore[assignment]


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All modules, each once, by the dotted names they have without wrappers; the network itself by the empty name."""
    found: dict[nn.Module, str] = {}

    def walk(module: nn.Module, name: str) -> None:
        module = unwrap(module)
        if module in found:
            return
        found[module] = name
        for part, child in module._modules.items():
            if child is not None:
                walk(child, f"{name}.{part}" if name else part)

    walk(model, "")
    return {name: module for module, name in found.items()}


@contextmanager
def as_written(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the network inside ``model`` and let it run as its author wrote it; afterwards all is as it was.

    Within the context hooks fire, modules have the names they were given, and torch.fx can look into them:

    - its wrapped parts are replaced by what they wrap, see `unwrap`;
    - compiled code is left aside and the Python code runs, by whatever way it was compiled. Nothing is compiled, and
      what was compiled before is used again afterwards: no guard of it sees a difference;
    - gradient checkpointing is off: timm's, which calls the blocks of a stage one by one so that the stage itself never
      runs, and ``torch.utils.checkpoint``, whose second run in the backward pass would not see what an attribution
      method changes in the first.

    The outputs are the same but for rounding (compiled code may round otherwise). Modes and gradients are not touched.
    May be nested; other threads that run compiled or checkpointed networks meanwhile compute the same, only slower.
    """
    network = unwrap(model)
    with _plain_torch.in_force(), ExitStack() as stack:
        for module in list(network.modules()):
            for entries, key, value in _entries_to_change(module):
                stack.callback(entries.__setitem__, key, entries[key])
                entries[key] = value
        yield network


def _entries_to_change(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Entries of a module's dictionaries that have to change, each with its key and new value."""
    if isinstance(module, torch.jit.ScriptModule):  # nothing in it can change
        return
    for name, child in module._modules.items():
        if child is not None and unwrap(child) is not child:
            yield module._modules, name, unwrap(child)
    # not by attribute: a wrapper hands those on to what it wraps
    if module.__dict__.get("_compiled_call_impl") is not None:  # by module.compile()
        yield module.__dict__, "_compiled_call_impl", None
    if module.__dict__.get("grad_checkpointing"):  # timm's
        yield module.__dict__, "grad_checkpointing", False


class _Shared:
    """Settings of the whole process, in force while any thread is inside."""

    def __init__(self, *settings: Callable[[], Any]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._inside = 0
        self._held = ExitStack()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Hold the settings for the length of the context."""
        with self._lock:
            if not self._inside:
                with ExitStack() as held:  # those already in force are taken back if the next one fails
                    for setting in self._settings:
                        held.enter_context(setting())
                    self._held = held.pop_all()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._held.close()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Compiled code is left aside, and its Python code runs."""
    if "torch._dynamo" not in sys.modules:  # takes seconds to import, and nothing can be compiled without it
        yield
        return
    try:
        stance = torch.compiler.set_stance("force_eager")
    except RuntimeError as error:
        raise RuntimeError(
            "a network cannot be explained from inside compiled code: put the call into a function of its own, "
            "decorated with @torch.compiler.disable"
        ) from error
    with stance:
        yield


@contextmanager
def _not_checkpointed() -> Iterator[None]:
    """``torch.utils.checkpoint`` calls its function, once, and keeps what the backward pass needs."""
    home = vars(torch.utils.checkpoint)
    # below checkpoint() itself, which everyone imports by name
    replacements = {
        "CheckpointFunction": _CalledOnce,
        "_checkpoint_without_reentrant_generator": _nothing_around,
        "_checkpoint_without_reentrant_generator_impl": _nothing_around,
    }
    former = {name: home[name] for name in replacements if name in home}  # their names differ among torch's versions
    home.update({name: replacements[name] for name in former})
    try:
        yield
    finally:
        home.update(former)


class _CalledOnce:
    """Replaces the autograd function that checkpoints with ``use_reentrant=True``."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
        return function(*inputs)


def _nothing_around(*_: Any, **__: Any) -> Iterator[None]:
    """Replaces what runs before and after the function with ``use_reentrant=False``."""
    yield


_plain_torch = _Shared(_uncompiled, _not_checkpointed)


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no parameter gradients, autograd usable; everything restored afterwards, also on an exception.

    Yields the network as its author wrote it, see `as_written`, but with pruned, normalised and parametrised weights as
    plain parameters, see `plain_weights`. Leaves inference mode too, so that it can be entered
    from a Lightning validation hook. ``.grad`` is never touched. Threads take turns, or one would restore what another
    had changed.
    """
    with _one_at_a_time:
        lock = _locks.setdefault(unwrap(model), threading.RLock())
    with lock, as_written(model) as network, _frozen(network):
        yield network


_one_at_a_time = threading.Lock()
_locks: "WeakKeyDictionary[nn.Module, threading.RLock]" = WeakKeyDictionary()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for module, _ in training:
                module.training = False
            for parameter, _ in requires_grad:
                parameter.requires_grad_(False)
            with plain_weights(model):
                yield
        finally:
            for module, mode in training:
                module.training = mode
            for parameter, flag in requires_grad:
                parameter.requires_grad_(flag)
