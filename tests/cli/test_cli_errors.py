"""Whatever is wrong with arguments or data is said in one line, before anything is trained."""

import shutil
from pathlib import Path

import pytest
import yaml
from commands import CONFIGS, TINY, the_error, written
from fakes import write_cohen, write_nih

NIH = ["--config", str(CONFIGS / "nih_classification.yaml")]
COHEN = ["--config", str(CONFIGS / "cohen_regression.yaml")]
SMALL = [*TINY, "--model.backbone=test_resnet", "--trainer.logger=false"]  # timm's smallest
ALONE = [*SMALL, "--trainer.callbacks=null"]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_nih(folder / "nih")
    write_cohen(folder / "cohen")
    return folder


def junk(root: Path) -> None:
    sorted(root.rglob("*.png"))[3].write_bytes(b"no image")


def truncated(root: Path) -> None:
    path = sorted(root.rglob("*.png"))[3]
    path.write_bytes(path.read_bytes()[:-40])


def missing(root: Path) -> None:
    sorted(root.rglob("*.png"))[3].unlink()


def box_outside(root: Path) -> None:
    lines = (root / "BBox_List_2017.csv").read_text().splitlines()
    name, finding, *_ = lines[1].split(",")
    lines[1] = f"{name},{finding},1000.0,20.0,500.0,30.0"
    (root / "BBox_List_2017.csv").write_text("\n".join(lines))


def no_images(root: Path) -> None:
    shutil.rmtree(root / "images_001")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (junk, ["1 of 47 images cannot be read", "00000004_000.png"]),
        (truncated, ["1 of 47 images cannot be read", "00000004_000.png"]),
        (missing, ["00000004_000", "allow_missing"]),
        (box_outside, ["BBox_List_2017.csv", "outside", "1000.0, 20.0, 500.0, 30.0"]),
        (no_images, ["no folder images", "unpack"]),
    ],
)
def test_bad_data_are_named_before_training(place, sources, capsys, spoil, words):
    root = shutil.copytree(sources / "nih", place / "copy")
    spoil(root)
    error = the_error(capsys, "fit", *NIH, "--data.root", str(root), *ALONE)
    assert all(part in error for part in words), error
    assert not written(place / "work")


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (NIH, [], ["no data root is given: --data.root DIR"]),
        (NIH, ["--data.root=/no/such/folder"], ["root is '/no/such/folder', which does not exist"]),
        (NIH, ["--data.root=."], ["no Data_Entry_2017_v2020.csv", "give as root"]),
        (NIH, ["--data.root={}/cohen"], ["no Data_Entry_2017_v2020.csv", "which holds data"]),
        (COHEN, ["--data.root={}/nih"], ["no data/public-annotations.csv", "which holds BBox_List"]),
        (
            COHEN,
            [*ALONE, "--data.root={}/cohen", "--data.target=detectors"],
            ["severity_0_1", "set data.target: severity"],
        ),
        (NIH, ["--data.root={}/nih"], ["layer='features.denseblock3' is not a module of ResNet; nearest names: "]),
        (NIH, ["--data.root={}/nih", "--model.backbone=densnet"], ["backbone='densnet'", "densenet121"]),
        (NIH, ["--data.root={}/nih", "--model.optimizer=adamv"], ["optimizer='adamv'", "try adamw"]),
        (NIH, ["--data.root={}/nih", "--model.schedule=cosin"], ["schedule", "'one_cycle'", "cosin"]),
        (NIH, ["--data.root={}/nih", "--model.lr=-1"], ["lr=-1.0 must be a number greater than 0"]),
        (NIH, ["--data.root={}/nih", "--data.batch_size=0"], ["batch_size is 0: give at least 1"]),
        (NIH, ["--data.root={}/nih", "--data.sise=3"], ["Option 'sise' is not accepted", "fit --help"]),
        (NIH, ["--data.root={}/nih", "--ckpt_path=nowhere.ckpt"], ["ckpt_path='nowhere.ckpt'", "it does not exist"]),
        (
            NIH,
            ["--data.root={}/nih", f"--ckpt_path={__file__}"],
            ["it is another kind of file, or cut short; give a .ckpt file"],
        ),
        (
            NIH,
            ["--data.root={}/nih", f"--trainer.default_root_dir={__file__}"],
            ["trainer.default_root_dir=", "cannot be written to (Not a directory): give another folder"],
        ),
        (["--config", "nowhere.yaml"], [], ["File does not exist", "nowhere.yaml"]),
    ],
)
def test_bad_arguments_are_named_with_the_remedy_for(place, sources, capsys, config, options, words):
    options = [option.format(sources) for option in options]
    error = the_error(capsys, "fit", *config, *SMALL, *options)
    assert all(part in error for part in words), error
    assert not [name for name in written(place / "work") if not name.endswith("config.yaml")]  # nothing was trained


def test_bad_data_leave_no_run_in_the_logger(place, sources, capsys):
    logged = ["--trainer.logger=WandbLogger", "--trainer.logger.offline=true"]
    error = the_error(capsys, "fit", *NIH, *SMALL, f"--data.root={sources}/cohen", *logged)
    assert "no Data_Entry_2017_v2020.csv" in error
    assert not written(place / "work")


@pytest.mark.parametrize(
    ("arguments", "words"), [(["fti"], "invalid choice: 'fti'"), ([], "{fit,validate,test,predict,")]
)
def test_a_wrong_command_lists_the_right_ones(place, capsys, arguments, words):
    assert words in the_error(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "--data=SyntheticDataModule", "--output_dir="], "output_dir is empty: give a folder"),
        (["fit", "--model.lr=1", *NIH], "--model.lr=1 stands before --config"),
    ],
)
def test_an_empty_folder_and_a_wrong_order_are_named(place, capsys, arguments, words):
    assert words in the_error(capsys, *arguments)


def test_several_callbacks_without_names_are_one_line(place, capsys):
    config = yaml.safe_load((CONFIGS / "nih_classification.yaml").read_text())
    explaining = config["trainer"]["callbacks"][0]
    config["trainer"] |= {"callbacks": [explaining, explaining], "logger": False}
    Path("twice.yaml").write_text(yaml.safe_dump(config))
    said = the_error(capsys, "fit", "--config", "twice.yaml", *TINY)
    assert all(words in said for words in ("trainer.callbacks", "name: ...", "attributors:"))


def test_a_logger_whose_package_is_missing_says_what_to_install(place, capsys, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{name}", False)
    options = ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=runs"]
    said = the_error(capsys, "fit", *NIH, *TINY, *options)
    assert "needs tensorboard" in said and "pip install 'lightning-chex[tensorboard]'" in said


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["fit", "--data", "NIHDataModul"], "NIHDataModule"),
        (["fit", "--data=CheXpertData"], "CheXpertDataModule"),
        (["fit", "--model", "ClasificationTask"], "ClassificationTask"),
        (["explain", "--attributor", "GradCam", "--ckpt_path", "x.ckpt"], "GradCAM"),
    ],
)
def test_a_misspelt_class_is_told_the_nearest_ones(capsys, arguments, nearest):
    error = the_error(capsys, *arguments)
    assert f"(nearest: {nearest}" in error and ": unknown class" in error and "MODULE.CLASS" in error
    assert "Expected" not in error


def test_a_name_like_no_class_is_named(capsys):
    error = the_error(capsys, "fit", "--data", "Qwertz")
    assert error.startswith("error: --data Qwertz: unknown class; give a class of your own as MODULE.CLASS")


@pytest.mark.filterwarnings("ignore")
def test_a_command_refused_after_the_logger_began_leaves_no_wandb_run(place, capsys):
    # IBACallback finds at its set-up that the network lacks the layer; Lightning has begun the run by then
    small = ["--model.backbone=test_resnet", "--data.size=64", "--data.num_train=8", "--data.num_val=4"]
    error = the_error(capsys, "fit", *small, f"--trainer.default_root_dir={place / 'runs'}")
    assert "is not a module of ResNet" in error
    wandb = place / "runs" / "wandb"
    assert wandb.is_dir() and not list(wandb.glob("*run*")) and not [own for own in wandb.iterdir() if own.is_symlink()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "--attributor.steps=5"], "--attributor.steps is an option of a class that is not given: name it "
         "with --attributor CLASS, for example --attributor "),
        (["explain", "--attributor.layers=5"], "for example --attributor MultiLayerIBA;"),
        (["explain", "--attributor.stepz=5"], "--attributor.stepz is an option of a class that is not given"),
        (["fit", "--optimizer.lr=1"], "--optimizer.lr is an option of a class that is not given: name it with "
         "--optimizer CLASS;"),
        (["fit", "--lr_scheduler.gamma=1"], "name it with --lr_scheduler CLASS;"),
        (["fit", "--trainer.strategy.find=1"], "--trainer.strategy is 'auto', which takes no options: name a class"),
    ],
)  # fmt: skip
def test_an_option_of_a_class_that_is_not_given_asks_for_the_class(capsys, arguments, words):
    assert words in the_error(capsys, *arguments)


def test_a_misspelt_option_of_a_given_class_is_not_taken_for_a_missing_class(capsys):
    error = the_error(capsys, "explain", "--attributor=IBA", "--attributor.stepz=5")
    assert "Option 'stepz' is not accepted" in error and "not given" not in error
