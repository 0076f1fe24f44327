"""Checkpoints of strangers: none runs code, fills the memory or deletes a file; each is refused in one line."""

import pytest
import torch
from commands import TINY, the_error, written
from hostile import CANARY, CHANGED, HARMLESS, WRITTEN, write

from lightning_chex.checkpoints import CheckpointError, is_address, read_checkpoint
from lightning_chex.cli.main import main
from lightning_chex.maps import LungNetwork
from lightning_chex.tasks import SegmentationTask

PHANTOM = [
    *TINY,
    "--data.num_train=8",
    "--data.num_val=4",
    "--data.num_test=4",
    "--model.backbone=test_resnet",  # timm's smallest
    "--trainer.logger=false",
    "--trainer.callbacks=null",
]
COMMANDS = ("fit", "validate", "test", "predict", "evaluate", "explain")
KINDS = (*CHANGED, *WRITTEN)
SOME = ("call_system", "huge", "deletes_folder")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a run of two steps has written."""
    root = tmp_path_factory.mktemp("trained")
    main(["fit", *PHANTOM, f"--trainer.default_root_dir={root}"])
    (path,) = root.rglob("*.ckpt")
    return path


@pytest.fixture(scope="module")
def lungs(tmp_path_factory):
    """A checkpoint as `SegmentationTask` leaves it."""
    task = SegmentationTask("resnet18")
    path = tmp_path_factory.mktemp("lungs") / "lungs.ckpt"
    parts = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": "2.6.6", "loops": {}, "callbacks": {}}
    states = {"state_dict": task.state_dict(), "optimizer_states": [], "lr_schedulers": []}
    torch.save({**parts, **states, "hyper_parameters": dict(task.hparams)}, path)
    return path


@pytest.fixture
def victim(place):
    """A folder that has nothing to do with any run."""
    folder = place / "victim"
    folder.mkdir()
    (folder / "x.ckpt").write_text("years of work")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_checkpoint_is_read_without_harm(place, trained, victim, kind):
    words = write(kind, place / "x.ckpt", trained, victim)
    for to_resume in (True, False):
        with pytest.raises(CheckpointError) as told:
            read_checkpoint(place / "x.ckpt", to_resume=to_resume)
        assert words in str(told.value) and "x.ckpt' is no checkpoint to use: " in str(told.value)
        assert "\n" not in str(told.value) and "give" in str(told.value) and len(str(told.value)) < 700
    assert not (place / "work" / CANARY).exists() and (victim / "x.ckpt").exists()


@pytest.mark.parametrize(("command", "kind"), [(command, kind) for command in COMMANDS for kind in SOME])
def test_every_command_refuses_it_in_one_line(place, trained, victim, capsys, command, kind):
    words = write(kind, place / "x.ckpt", trained, victim)
    error = the_error(capsys, command, *PHANTOM, f"--ckpt_path={place / 'x.ckpt'}")
    assert "ckpt_path=" in error and words in error
    assert not written(place / "work") and (victim / "x.ckpt").exists()


@pytest.mark.parametrize("kind", SOME)
def test_lungs_of_strangers_are_refused_in_one_line(place, trained, victim, capsys, kind):
    words = write(kind, place / "x.ckpt", trained, victim)
    error = the_error(capsys, "evaluate", *PHANTOM, f"--ckpt_path={trained}", f"--lungs={place / 'x.ckpt'}")
    assert "lungs=" in error and words in error
    assert not (place / "work" / CANARY).exists() and (victim / "x.ckpt").exists()


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_names_of_code_are_only_names(place, trained, victim, capsys, command, kind):
    write(kind, place / "x.ckpt", trained, victim)
    capsys.readouterr()
    try:
        main([command, *PHANTOM, f"--ckpt_path={place / 'x.ckpt'}", "--trainer.max_epochs=2"])
    except SystemExit as stop:
        assert stop.code == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err and err.splitlines()[-1].startswith("error: ")
    assert not (place / "work" / CANARY).exists()


@pytest.mark.parametrize("kind", ["instantiator", "target", "name_of_settings", "old_settings", "networks", "version"])
def test_names_of_code_in_a_lung_network_are_only_names(place, lungs, victim, monkeypatch, kind):
    write(kind, place / "x.ckpt", lungs, victim)
    fetched = []
    monkeypatch.setattr("lightning_chex.tasks.backbone._fetched", lambda name, build: fetched.append(name))
    try:
        LungNetwork(place / "x.ckpt", torch.device("cpu"))
    except CheckpointError as told:
        assert "is no checkpoint of a SegmentationTask" in str(told) and "\n" not in str(told)
    assert not fetched and not (place / "work" / CANARY).exists()


ADDRESSES = (
    "http://localhost:1/x.ckpt",
    "https://localhost:1/x.ckpt",
    "HTTP://localhost:1/x.ckpt",
    "s3://bucket/x.ckpt",
    "memory://x.ckpt",
    "file:///x.ckpt",
    "filecache::http://localhost:1/x.ckpt",
    "simplecache::memory://x",
    "zip://x::http://localhost:1/x.zip",
    "data:application/octet-stream;base64,AAAA",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_known_as_one(address):
    assert is_address(address) and is_address(f" {address}")
    with pytest.raises(CheckpointError, match="is a remote path, which is not supported"):
        read_checkpoint(address)


@pytest.mark.parametrize("name", ["runs/a/best.ckpt", "/a/b.ckpt", "~/x", "a:b", "C:\\x.ckpt", "../x", "x=1.ckpt"])
def test_a_file_is_no_address(name):
    assert not is_address(name)


@pytest.fixture
def no_network(monkeypatch):
    """Whoever opens an address here fails the test."""

    def opened(*arguments, **options):
        raise AssertionError(f"something was fetched: {arguments}")

    for name in ("torch.hub.load_state_dict_from_url", "urllib.request.urlopen", "socket.socket.connect"):
        monkeypatch.setattr(name, opened)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("address", ADDRESSES[:1] + ADDRESSES[3:4] + ADDRESSES[6:7])
def test_every_command_refuses_an_address(place, capsys, no_network, command, address):
    error = the_error(capsys, command, *PHANTOM, f"--ckpt_path={address}")
    assert f"ckpt_path={address!r} is a remote path, which is not supported: download it, if you trust" in error
    assert not written(place / "work")


@pytest.mark.parametrize(
    ("command", "options", "name"),
    [
        ("evaluate", ["--lungs={}"], "lungs"),
        ("evaluate", ["--methods=[{}]"], "methods"),
        ("explain", ["--output_dir={}"], "output_dir"),
        ("explain", ["--attributor={}"], "attributor"),
        ("explain", ["--attributor", "{}"], "attributor"),
        ("explain", ["--rle={}"], "rle"),
        ("fit", ["--data=NIHDataModule", "--data.root=.", "--data.prepared={}"], "data.prepared"),
        ("fit", ["--trainer.default_root_dir={}"], "trainer.default_root_dir"),
        ("fit", ["--config={}"], "config"),
        ("fit", ["-c", "{}"], "c"),
        ("fit", ["--data={}"], "data"),
        ("fit", ["--model={}"], "model"),
        ("predict", ["--data=ImageFolderDataModule", "--data.root={}"], "data.root"),
        ("inspect", ["--data=NIHDataModule", "--data.root={}"], "data.root"),
        ("prepare", ["--data=NIHDataModule", "--data.root=.", "--output_dir={}"], "output_dir"),
    ],
)
def test_every_option_refuses_an_address(place, capsys, no_network, command, options, name):
    address = "http://localhost:1/x.yaml"
    error = the_error(capsys, command, *(option.format(address) for option in options))
    assert f"{name}={address!r} is a remote path, which is not supported" in error
    assert not written(place / "work")


def test_an_address_inside_a_configuration_is_refused_too(place, capsys, no_network):
    (place / "x.yaml").write_text(
        "data: http://localhost:1/data.yaml\nmodel: {class_path: ClassificationTask}\nckpt_path: http://localhost:1/x\n"
    )
    error = the_error(capsys, "fit", "--config", str(place / "x.yaml"))
    assert "http://localhost:1/" in error
    (place / "x.yaml").write_text(
        "ckpt_path: http://localhost:1/x\nmodel: {class_path: ClassificationTask}\n"
        "data: {class_path: SyntheticDataModule}\n"
    )
    assert "ckpt_path='http://localhost:1/x' is a remote path" in the_error(capsys, "fit", "-c", str(place / "x.yaml"))


def test_weights_only_cannot_be_switched_off(place, trained, capsys, monkeypatch):
    error = the_error(capsys, "fit", *PHANTOM, f"--ckpt_path={trained}", "--weights_only=false")
    assert error == "error: weights_only=False would let a checkpoint run code: leave it out"
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    asked = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *a, **options: asked.append(options["weights_only"]) or load(*a, **options)
    )
    main(["validate", *PHANTOM, f"--ckpt_path={trained}"])
    assert len(asked) > 1 and set(asked) == {True}  # ours, then Lightning's


def test_a_lung_network_fetches_no_weights(place, lungs, monkeypatch):
    content = torch.load(lungs, weights_only=True)
    torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], "pretrained": True}}, place / "x.ckpt")
    fetched = []
    monkeypatch.setattr("lightning_chex.tasks.backbone._fetched", lambda name, build: fetched.append(name))
    LungNetwork(place / "x.ckpt", torch.device("cpu"))
    assert not fetched
