"""A network starts from the weights of a file: outputs are those of the network the file is of."""

import csv
import logging
import re

import pytest
import timm
import torch
from commands import TINY, the_error, written
from hostile import CALLS, CANARY, write
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from tiny import CLASS_NAMES, TinyData, tiny_trainer
from torch import nn
from torchvision.models import densenet121, resnet18

from lightning_chex.attribution import IBA
from lightning_chex.checkpoints import CheckpointError
from lightning_chex.cli.main import main
from lightning_chex.data import PATHOLOGIES, SyntheticDataModule
from lightning_chex.tasks import ClassificationTask, RegressionTask, SegmentationTask

SMALL = "test_resnet"
PHANTOM = [
    *TINY,
    "--data.num_train=8",
    "--data.num_val=4",
    "--data.num_test=4",
    "--trainer.logger=false",
    "--trainer.callbacks=null",
]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def said(monkeypatch):
    """Lines of Lightning's own logger, which reach no other."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, logger = Keep(), logging.getLogger("pytorch_lightning.utilities.rank_zero")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def trained_looking(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every normalisation statistics and factors of its own: those of a new network are all alike."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator)

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(draw(module.running_mean) - 0.5)
            module.running_var.copy_(draw(module.running_var) + 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator)
    return network.eval()


def of_torchvision(outputs: int, channels: int = 3) -> nn.Module:
    torch.manual_seed(1)
    network = densenet121(num_classes=outputs)
    if channels != 3:
        network.features.conv0 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return trained_looking(network)


def xrays() -> torch.Tensor:
    """Phantom X-rays as every network here sees them, (4, 3, 64, 64)."""
    data = SyntheticDataModule(num_train=1, num_val=4, num_test=1, size=64, num_workers=0)
    data.setup("validate")
    return next(iter(data.val_dataloader()))["image"]


def old_names(state):
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value for name, value in state.items()}


def as_chexnet(state):
    """As arnoweng's model.pth.tar of 2017: DataParallel, old names, a Sequential head, no count of batches."""
    state = {name.replace("classifier.", "classifier.0."): value for name, value in old_names(state).items()}
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    return {"epoch": 3, "state_dict": {f"module.densenet121.{name}": value for name, value in state.items()}}


FORMS = {
    "plain": ("x.pt", lambda state: state),
    "pth": ("x.pth", old_names),
    "compiled": ("x.pt", lambda state: {f"_orig_mod.{name}": value for name, value in state.items()}),
    "chexnet": ("model.pth.tar", as_chexnet),
    "lightning": (
        "other.ckpt",
        lambda state: {
            "pytorch-lightning_version": "2.0.0",
            "epoch": 7,
            "hyper_parameters": {"depth": 121},
            "state_dict": {"pos_weight": torch.ones(5)} | {f"net.{name}": value for name, value in state.items()},
        },
    ),
    "safetensors": ("x.safetensors", lambda state: state),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_are_those_of_torchvisions_network_with_the_same_weights(tmp_path, said, form):
    reference, images = of_torchvision(5), xrays()
    name, change = FORMS[form]
    content = change(reference.state_dict())
    path = tmp_path / name
    if form == "safetensors":
        save_file({key: value.contiguous() for key, value in content.items()}, path)
    else:
        # what torch wrote before 1.6 is still about
        torch.save(content, path, _use_new_zipfile_serialization=form not in ("pth", "chexnet"))
    task = ClassificationTask(list("abcde"), weights=str(path)).eval()
    with torch.no_grad():
        torch.testing.assert_close(task(images), reference(images), rtol=0, atol=1e-5)
    (line,) = [line for line in said if line.startswith("weights=")]
    assert "the head is kept; the file does not say what its outputs are, here: a, b, c, d, e" in line


def as_xrv(network: nn.Module, thresholds: bool = True):
    return network.state_dict() | ({"op_threshs": torch.rand(18)} if thresholds else {})


@pytest.mark.parametrize("large", [True, False])
def test_torchxrayvisions_input_is_adapted_exactly(tmp_path, said, large):
    reference = of_torchvision(18, channels=1)
    images = xrays()
    with torch.no_grad():
        theirs = ((images[:, :1] * 0.229 + 0.485) * 2 - 1) * 1024  # as torchxrayvision.datasets.normalize has it
        assert theirs.min() < -1000 and theirs.max() > 500
        if large:  # statistics as a training on their range of values leaves them; else the outputs say nothing
            at_norm = reference.features.conv0(theirs)
            reference.features.norm0.running_mean.copy_(at_norm.mean((0, 2, 3)))
            reference.features.norm0.running_var.copy_(at_norm.var((0, 2, 3)))
        expected = reference(theirs)
    torch.save(as_xrv(reference), tmp_path / "xrv.pt")
    task = ClassificationTask([f"class {i}" for i in range(18)], weights=str(tmp_path / "xrv.pt")).eval()
    with torch.no_grad():
        found = task(images)
    scale = expected.abs().max()
    assert expected.std(0).mean() > 0.01 * scale  # images differ in it
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)
    (line,) = [line for line in said if line.startswith("weights=")]
    assert "the input layer is adapted exactly from one channel of -1024 to 1024 to ours" in line
    if large:  # fine-tuning steps are of the size of the weights
        assert task.model.features.conv0.weight.abs().max() < 1
    iba = IBA(layer="features.denseblock3", steps=2).fit(task.model, [images, images.flip(0)])
    assert (iba.attribute(task.model, images[:1], torch.tensor([0])) >= 0).all()


def test_a_grey_network_of_unknown_range_is_refused(tmp_path):
    torch.save(of_torchvision(5, channels=1).state_dict(), tmp_path / "grey.pt")
    with pytest.raises(CheckpointError, match=r"one input channel, but not known to be one of torchxrayvision"):
        ClassificationTask(list("abcde"), weights=str(tmp_path / "grey.pt"))


def fitted(folder, task, **options):
    trainer = tiny_trainer(folder, **options)
    trainer.fit(task, TinyData(score=isinstance(task, RegressionTask)))
    trainer.save_checkpoint(folder / "ours.ckpt")
    return str(folder / "ours.ckpt")


def body(task) -> dict[str, torch.Tensor]:
    return {name: value for name, value in task.model.state_dict().items() if not name.startswith("fc.")}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_our_checkpoint_starts_any_task_and_keeps_a_head_of_the_same_classes_only(tmp_path, said):
    before = ClassificationTask(CLASS_NAMES, SMALL)
    path = fitted(tmp_path, before)
    kept = ClassificationTask(CLASS_NAMES, SMALL, weights=path)
    assert same(kept.model.state_dict(), before.model.state_dict()) and "of the same outputs: left, right" in said[-1]
    other = ClassificationTask(("right", "left"), SMALL, weights=path)
    assert same(body(other), body(before)) and not torch.equal(other.model.fc.weight, before.model.fc.weight)
    assert "the head of other outputs (left, right; here: right, left) is replaced by a new one" in said[-1]
    score = RegressionTask((0, 9), SMALL, weights=path)
    assert same(body(score), body(before)) and score.model.fc.bias.tolist() == [4.5]
    assert "the head of another size ([2, 96] in the file, [1, 96] here) is replaced" in said[-1]
    again = RegressionTask((0, 18), SMALL, weights=fitted(tmp_path, score))
    assert same(again.model.state_dict(), score.model.state_dict()), "a head that is kept keeps its bias"


@pytest.mark.parametrize("kind", [ClassificationTask, RegressionTask])
def test_a_checkpoint_of_such_a_start_loads_without_the_file(tmp_path, kind):
    names = {"class_names": CLASS_NAMES} if kind is ClassificationTask else {}
    first = tmp_path / "first.pt"
    torch.save(ClassificationTask(CLASS_NAMES, SMALL).model.state_dict(), first)
    task = kind(**names, backbone=SMALL, weights=str(first))
    path = fitted(tmp_path, task)
    first.unlink()
    restored = kind.load_from_checkpoint(path, weights_only=True)
    assert restored.hparams["weights"] is None and same(restored.model.state_dict(), task.model.state_dict())


def test_a_backbone_without_head_starts_one_with(tmp_path, said):
    before = ClassificationTask(CLASS_NAMES, SMALL)
    torch.save(body(before), tmp_path / "body.pt")
    task = ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "body.pt"))
    assert same(body(task), body(before)) and "it has no head, so a new one begins" in said[-1]


def by_other_names(state):
    """As another implementation might name the same tensors: nothing but the last part of a name is ours."""
    return {f"_{number}._of.{key.rpartition('.')[2]}": state[key] for number, key in enumerate(state)}


@pytest.fixture
def of_our_range(monkeypatch):
    """Let timm say that the small network sees images like ours, so that its weights stay as they are."""
    make = timm.create_model

    def made(*arguments, **options):
        network = make(*arguments, **options)
        network.pretrained_cfg |= {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
        return network

    monkeypatch.setattr(timm, "create_model", made)


def test_other_names_are_told_by_their_order(tmp_path, said, of_our_range):
    reference, images = trained_looking(ClassificationTask(list("abcde"), SMALL).model), xrays()
    torch.save(by_other_names(reference.state_dict()), tmp_path / "other.pth")
    task = ClassificationTask(list("abcde"), SMALL, weights=str(tmp_path / "other.pth")).eval()
    with torch.no_grad():
        torch.testing.assert_close(task(images), reference(images), rtol=0, atol=1e-6)
    assert "the head is kept; the file does not say what its outputs are, here: a, b, c, d, e" in said[-1]
    assert (
        "its names, such as _0._of.weight, _1._of.weight, _2._of.bias, ..., are others, but all fit in order"
        in said[-1]
    )
    smaller = ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "other.pth"))
    assert same(body(smaller), {key: own for key, own in reference.state_dict().items() if not key.startswith("fc.")})
    assert "the head of another size ([5, 96] in the file, [2, 96] here) is replaced by a new one" in said[-1]
    # neither a head nor, as before 2018, the number of batches seen
    bare = {key: own for key, own in reference.state_dict().items() if not key.startswith("fc.") and own.ndim}
    torch.save(by_other_names(bare), tmp_path / "bare.pth")
    task = ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "bare.pth"))
    assert all(torch.equal(task.model.state_dict()[key], own) for key, own in bare.items())
    assert "it has no head, so a new one begins" in said[-1]


def test_a_packaged_network_sees_our_images_as_it_saw_its_own(tmp_path, said):
    torch.manual_seed(2)
    reference = trained_looking(timm.create_model("tf_efficientnet_lite0", num_classes=5))
    images = xrays()
    grey = images[:, :1] * 0.229 + 0.485
    with torch.no_grad():
        expected = reference(((grey - 0.5) / 0.5).expand(-1, 3, -1, -1))
    torch.save(by_other_names(reference.state_dict()), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    task = ClassificationTask(list("abcde"), "tf_efficientnet_lite0", weights=str(tmp_path / "x.pth")).eval()
    with torch.no_grad():
        found, otherwise = task(images), reference(images)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-4)
    assert (otherwise - expected).abs().max() > 0.01 * scale  # so that it matters
    assert "adapted exactly from images of mean (0.5, 0.5, 0.5) and deviation (0.5, 0.5, 0.5), timm's" in said[-1]


def exchanged(state, one: str, other: str):
    """The same with two neighbours in each other's place."""
    swap = {one: other, other: one}
    return by_other_names({swap.get(key, key): state[swap.get(key, key)] for key in state})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # alike in shape: the last part of the name tells
        (
            lambda state: exchanged(state, "conv1.1.weight", "conv1.1.bias"),
            r"_1._of.bias \(16,\) is where conv1.1.weight",
        ),
        (lambda state: exchanged(state, "conv1.0.weight", "fc.weight"), r"_0._of.weight \(5?2?, 96\) is where"),
        (lambda state: by_other_names(without("layer1.0.conv1.weight")(state)), r" is where layer1.0.conv1.weight \("),
        (lambda state: by_other_names(state | {"z.weight": torch.ones(1)}), r"\d+ tensors, \d+ here"),
        (lambda state: {key: own for key, own in list(by_other_names(state).items())[:-1]}, r"\d+ tensors, \d+ here"),
    ],
)
def test_other_names_that_do_not_fit_in_order_are_refused(tmp_path, change, words):
    torch.save(change(ClassificationTask(CLASS_NAMES, SMALL).model.state_dict()), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"none of the names of ResNet.*Nor does it fit in order: .*{words}"):
        ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "x.pt"))


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layer1.0.conv1.weight"), r"1 missing: layer1.0.conv1.weight\. Give weights of the same backbone"),
        (lambda state: state | {"layer9.w": torch.ones(1)}, r"1 unexpected: layer9.w\."),
        (
            lambda state: state | {"layer1.0.conv1.weight": torch.ones(1)},
            r"1 of another shape: layer1.0.conv1.weight \(",
        ),
        (lambda state: {f"a.{key}": value for key, value in state.items()} | {"b": torch.ones(1)}, "1 unexpected: b"),
        (lambda state: {f"{key}s": value for key, value in state.items()}, "has none of the names of ResNet"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    torch.save(change(ClassificationTask(CLASS_NAMES, SMALL).model.state_dict()), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=words) as told:
        ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "x.pt"))
    assert "\n" not in str(told.value) and str(tmp_path / "x.pt") in str(told.value)


def test_another_backbone_names_the_first_few_only(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"\d\d missing: .*, \.\.\.; .*unexpected: ") as told:
        ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "x.pt"))
    assert len(str(told.value)) < 600


def test_a_lung_network_starts_from_another_or_its_encoder_from_a_classifier(tmp_path, said):
    torch.manual_seed(3)
    before = SegmentationTask()
    torch.save({"state_dict": before.state_dict()}, tmp_path / "lungs.ckpt")
    task = SegmentationTask(weights=str(tmp_path / "lungs.ckpt"))
    assert same(task.model.state_dict(), before.model.state_dict())
    classifier = trained_looking(resnet18())
    torch.save(classifier.state_dict(), tmp_path / "resnet.pt")
    task, images = SegmentationTask(weights=str(tmp_path / "resnet.pt")).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        layers = nn.Sequential(*list(classifier.children())[:-2])
        torch.testing.assert_close(task.model.encoder(images)[-1], layers(images), rtol=1e-4, atol=1e-4)
    assert "the encoder starts from it, the decoder anew" in said[-1]


def test_shuffled_labels_are_told(tmp_path):
    content = {"state_dict": ClassificationTask(CLASS_NAMES, SMALL).model.state_dict(), "shuffled_labels": True}
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.warns(match="trained with data.shuffle_labels"):
        ClassificationTask(CLASS_NAMES, SMALL, weights=str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://localhost:1/x.pt", "is a remote path, which is not supported"),
        ("none.pt", "it does not exist"),
        ("text.pt", "another kind of file, or damaged"),
        ("text.safetensors", "another kind of file, or damaged"),
        ("module.pt", r"holds torch.nn.modules.linear.Linear, which could run code.*state_dict"),
        ("list.pt", "it holds a list where weights are kept by name"),
        ("settings.pt", "it holds no tensors by name"),
        ("nan.pt", "1 of its 1 tensors hold NaN"),
        ("infinite.pt", r"1 of its 2 tensors hold infinite values \(w for one\)"),
    ],
)
def test_files_of_other_kinds_are_refused(place, capsys, path, words):
    for name in ("text.pt", "text.safetensors"):
        (place / "work" / name).write_text("no weights")
    torch.save(nn.Linear(1, 1), "module.pt")
    torch.save([1], "list.pt")
    torch.save({"lr": 3}, "settings.pt")
    torch.save({"w": torch.tensor([torch.nan])}, "nan.pt")
    unbounded = torch.tensor([-torch.inf])
    torch.save({"w": unbounded, "attention_mask": unbounded}, "infinite.pt")
    before = written(place / "work")
    error = the_error(capsys, "fit", *PHANTOM, f"--model.backbone={SMALL}", f"--model.weights={path}")
    assert re.search(words, error) and f"weights='{path}'" in error
    assert written(place / "work") == before


@pytest.mark.parametrize("kind", ["call_mkdir", "in_weights", "opcodes_inst", "huge_weight", "legacy_tar", "bomb"])
def test_weights_of_strangers_are_read_without_harm(place, kind):
    trained, victim = place / "trained.ckpt", place / "victim"
    task = ClassificationTask(CLASS_NAMES, SMALL)
    torch.save({"state_dict": task.state_dict(), "callbacks": {}, "hyper_parameters": dict(task.hparams)}, trained)
    write(kind, place / "x.ckpt", trained, victim)
    with pytest.raises(CheckpointError, match="is no file of weights to use"):
        ClassificationTask(CLASS_NAMES, SMALL, weights=str(place / "x.ckpt"))
    assert not (place / "work" / CANARY).exists()


def test_code_in_the_format_of_before_is_not_run(place):
    torch.save({"w": torch.ones(1), "x": CALLS["mkdir"]}, place / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="could run code"):
        ClassificationTask(CLASS_NAMES, SMALL, weights=str(place / "x.pt"))
    assert not (place / "work" / CANARY).exists()


def test_two_starts_are_one_too_many(place, capsys):
    error = the_error(
        capsys, "fit", *PHANTOM, f"--model.backbone={SMALL}", "--model.weights=x.pt", "--model.pretrained=true"
    )
    assert "weights='x.pt' and pretrained=True" in error


def test_the_command_line_predicts_with_them_fits_resumes_and_tests_without_the_file(place):
    reference = of_torchvision(len(PATHOLOGIES))
    torch.save(reference.state_dict(), "densenet.pt")
    main(["predict", *PHANTOM, "--model.weights=densenet.pt", "--trainer.default_root_dir=p"])
    with (place / "work" / "p" / "predictions.csv").open() as file:
        _, *rows = csv.reader(file)
    data = SyntheticDataModule(num_train=8, num_val=4, num_test=4, size=64, num_workers=0, augment=False)
    data.setup("test")
    images = torch.stack([sample["image"] for sample in data.dataset("test")])
    with torch.no_grad():
        expected = reference(images).sigmoid()
    found = torch.tensor([[float(value) for value in row[1:]] for row in rows])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

    main(["fit", *PHANTOM, "--model.weights=densenet.pt", "--trainer.default_root_dir=f", "--model.lr=1e-6"])
    (checkpoint,) = (place / "work" / "f").rglob("last.ckpt")
    then = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, value in reference.state_dict().items():
        if name.endswith("weight"):
            torch.testing.assert_close(then[f"model.{name}"], value, rtol=0, atol=1e-4)
    (place / "work" / "densenet.pt").unlink()
    again = ["--trainer.default_root_dir=f", "--model.weights=densenet.pt"]
    main(["fit", *PHANTOM, *again, "--ckpt_path=last", "--trainer.max_epochs=2"])
    main(["test", *PHANTOM, *again, f"--ckpt_path={checkpoint}"])
