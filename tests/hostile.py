"""Checkpoints of a stranger who wants to run code, to fill the memory, or to have other files deleted."""

import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

CANARY = "executed"
"""What every piece of code in these files would leave in the working folder."""


class Calls:
    """Unpickled it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Builds:
    """Unpickled it calls a function through ``__setstate__`` of something else."""

    def __reduce__(self) -> tuple[Any, ...]:
        return io.StringIO, (), Calls(os.mkdir, CANARY)


CALLS = {
    "mkdir": Calls(os.mkdir, CANARY),
    "system": Calls(os.system, f"touch {CANARY}"),
    "popen": Calls(subprocess.Popen, ["touch", CANARY]),
    "exec": Calls(exec, f"open({CANARY!r}, 'w')"),
    "eval": Calls(eval, f"open({CANARY!r}, 'w')"),
    "open": Calls(open, CANARY, "w"),
    "getattr": Calls(getattr, Calls(__import__, "os"), "mkdir"),
    "partial": partial(os.mkdir, CANARY),
    "hub": Calls(torch.hub.load_state_dict_from_url, "http://localhost:1/x"),
    "load": Calls(torch.load, "other.pt"),
    "setstate": Builds(),
    "module": torch.nn.Linear(1, 1),
}
"""Objects whose unpickling runs code."""

OPCODES = {
    "inst": b"(S'executed'\nios\nmkdir\n.",
    "global": b"cos\nmkdir\n(S'executed'\ntR.",
    "dotted": b"\x80\x04\x8c\x02os\x8c\x0bpath.os.mkdir\x93\x8c\x08executed\x85R.",
    "memo": b"\x80\x02cos\nmkdir\nq\x00}q\x01h\x00X\x08\x00\x00\x00executed\x85R.",
    "extension": b"\x80\x02\x82\x01X\x08\x00\x00\x00executed\x85R.",
    "persistent": b"\x80\x02cos\nmkdir\nX\x08\x00\x00\x00executed\x85RQ.",
    "newobj": b"\x80\x02csubprocess\nPopen\nX\x0e\x00\x00\x00touch executed\x85\x81.",
    "nothing": b".",
    "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
}
"""Pickles written by hand."""

MODEL_CHECKPOINT = (
    "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
    "'train_time_interval': None}"
)

Content = dict[str, Any]


def with_pickle(path: Path, data: bytes, how: int = zipfile.ZIP_STORED) -> None:
    """Write an archive like ``torch.save``'s with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(64))


def legacy(path: Path, content: Content) -> None:
    """Write what torch wrote before 1.6: pickles one after another, no archive."""
    torch.save({**content, "extra": CALLS["mkdir"]}, path, _use_new_zipfile_serialization=False)


def legacy_tar(path: Path, content: Content) -> None:
    """Write what torch wrote before 0.1.10: a tar of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps(CALLS["mkdir"])
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def tar_behind_zip(path: Path, content: Content) -> None:
    """Join a tar with a zip, which readers look for at the other end."""
    legacy_tar(path, content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "two formats in one file")


def script(path: Path, content: Content) -> None:
    """Write a TorchScript archive, which holds code."""
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)


def bomb(path: Path, content: Content) -> None:
    """Write an archive of a few kilobytes whose pickle has 64 MiB, and could have any size."""
    with_pickle(path, b"\x80\x02" + b"N0" * 2**25 + b"}.", zipfile.ZIP_DEFLATED)


def circle(content: Content) -> Content:
    """Let containers hold each other, beside a tensor that is too large."""
    ring: list[Any] = [torch.zeros(1).expand(2**50)]
    ring.append(ring)
    return {**content, "callbacks": {"a": {"ring": ring}}}


def of_checkpoint(**state: Any) -> Callable[[Content], Content]:
    """Give the state of Lightning's ModelCheckpoint, without the folder, so that it holds in any."""

    def change(content: Content) -> Content:
        key = next((key for key in content["callbacks"] if key.startswith("ModelCheckpoint")), MODEL_CHECKPOINT)
        content["callbacks"].setdefault(key, {})
        kept = {name: value for name, value in content["callbacks"][key].items() if name != "dirpath"}
        return {**content, "callbacks": {key: {**kept, **state}}}

    return change


def part(**changes: Any) -> Callable[[Content], Content]:
    """Replace parts of a checkpoint."""
    return lambda content: {**content, **changes}


VICTIM = "victim/x.ckpt"
OVERSIZE = "its tensors would need"
RUNS_CODE = "which could run code"

CHANGED: dict[str, tuple[Callable[[Content], Content], str]] = {
    **{f"call_{name}": (part(extra=call), "is no checkpoint to use") for name, call in CALLS.items()},
    "in_weights": (lambda c: {**c, "state_dict": {**c["state_dict"], "x": CALLS["mkdir"]}}, RUNS_CODE),
    "in_settings": (part(hyper_parameters={"lr": CALLS["mkdir"]}), RUNS_CODE),
    "in_callback": (part(callbacks={"EarlyStopping{}": {"wait_count": CALLS["mkdir"]}}), RUNS_CODE),
    "in_loops": (part(loops={"fit_loop": CALLS["mkdir"]}), RUNS_CODE),
    "as_key": (part(loops={(1, Calls(os.mkdir, CANARY)): 1}), RUNS_CODE),
    "settings_type": (part(hparams_type=os.mkdir), RUNS_CODE),
    "huge": (part(extra=torch.zeros(1).expand(2**50)), OVERSIZE),
    "huge_weight": (lambda c: {**c, "state_dict": {"w": torch.zeros(1).expand(2**50)}}, OVERSIZE),
    "sparse": (
        part(extra=torch.sparse_coo_tensor(size=(2**30, 2**30), check_invariants=False)),
        "without values of its own",
    ),
    "meta": (part(extra=torch.zeros(2**50, device="meta")), "without values of its own"),
    "circle": (circle, OVERSIZE),
    "deletes_folder": (of_checkpoint(best_model_path="local://{}"), "a file that a training would delete"),
    "deletes_last": (of_checkpoint(last_model_path="memory://x"), "a file that a training would delete"),
    "deletes_best": (of_checkpoint(best_k_models={"local://{}": torch.tensor(0.0)}), "that a training would delete"),
    "leads_out": (of_checkpoint(kth_best_model_path="checkpoints/../../victim/x.ckpt"), "would delete"),
}
"""Changes to a checkpoint that is whole, and what has to be said of each."""

WRITTEN: dict[str, tuple[Callable[[Path, Content], None], str]] = {
    **{
        f"opcodes_{name}": (lambda p, c, d=data: with_pickle(p, d), "is no checkpoint")
        for name, data in OPCODES.items()
    },
    "legacy": (legacy, "another kind of file"),
    "legacy_tar": (legacy_tar, "another kind of file"),
    "tar_behind_zip": (tar_behind_zip, "is no checkpoint to use"),
    "script": (script, "is compressed"),
    "bomb": (bomb, "is compressed"),
}
"""Files of other kinds."""

HARMLESS: dict[str, Callable[[Content], Content]] = {
    "instantiator": part(hyper_parameters={"_instantiator": "os.mkdir", "_class_path": "os.mkdir", "path": CANARY}),
    "target": part(hyper_parameters={"_target_": "os.mkdir", "_args_": [CANARY], "class_path": "os.mkdir"}),
    "name_of_settings": part(hparams_name="encoder", hparams_type="builtins.exec", hyper_parameters={"x": CANARY}),
    "old_settings": part(hparams={"encoder": "os.mkdir"}, module_arguments={"encoder": CANARY}),
    "networks": part(hyper_parameters={"backbone": "hf-hub:a/b", "encoder": "tu-hf-hub:a/b", "pretrained": True}),
    "old": part(**{"pytorch-lightning_version": "0.5.0"}),
    "version": part(**{"pytorch-lightning_version": "__import__('os').mkdir('executed')"}),
    "loops": part(loops={"fit_loop": {"state_dict": "os.mkdir", "epoch_progress": CANARY}}),
    "optimizer": part(optimizer_states=[{"state": {0: "os.mkdir"}, "param_groups": "os.mkdir"}]),
    "schedulers": part(lr_schedulers=["os.mkdir"]),
    "callbacks": part(callbacks={"ModelCheckpoint": 3, "IBACallback": "os.mkdir", "x": None}),
    "precision": part(MixedPrecision={"scale": "os.mkdir"}, native_amp_scaling_state="os.mkdir"),
    "data": part(SyntheticDataModule={"root": CANARY}, datamodule_hyper_parameters={"_instantiator": "os.mkdir"}),
}
"""Changes that name code or are of odd kinds; nothing comes of them, or one line."""


def write(kind: str, path: Path, trained: Path, victim: Path) -> str:
    """Write the file of a kind and return what has to be said of it; empty where nothing has to be."""
    content = torch.load(trained, weights_only=True)
    if kind in WRITTEN:
        make, words = WRITTEN[kind]
        make(path, content)
        return words
    change, words = CHANGED[kind] if kind in CHANGED else (HARMLESS[kind], "")
    torch.save(_aimed(change(content), victim), path)
    return words


def _aimed(value: Any, victim: Path) -> Any:
    if isinstance(value, str):
        return value.replace("local://{}", f"local://{victim}")
    if type(value) is dict:
        return {_aimed(key, victim): _aimed(one, victim) for key, one in value.items()}
    return value
