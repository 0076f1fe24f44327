"""The private and undocumented parts of Lightning and jsonargparse are as ``lightning_private.py`` takes them.

One test a part; its message says which feature of this package is broken when Lightning changes that part.
"""

import ast
import logging
import re
import warnings
from pathlib import Path
from typing import get_args

import pytest
import pytorch_lightning as pl
import yaml
from commands import the_error
from jsonargparse import ArgumentParser
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning import cli as lightning_cli
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.trainer.connectors import data_connector
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.rank_zero import WarningCache
from tiny import TinyData, TinyTask, tiny_trainer
from torch import nn
from torch.utils.data import BatchSampler, DistributedSampler, SequentialSampler

import lightning_chex
from lightning_chex.attribution import Attributor
from lightning_chex.checkpoints import stray_path
from lightning_chex.cli.arguments import Parser
from lightning_chex.explanations import IBACallback
from lightning_chex.lightning_private import (
    CALLBACKS_LEFT_OUT,
    FOLDER_IN_USE,
    OF_NO_USE,
    SAME_STATE,
    SAMPLERS,
    WeightsAlone,
    arose_in_restoring,
    batch_sampler_of,
    callbacks_of,
    concise,
    declared_type,
    is_process_0,
    is_trial,
    let_start_quietly,
    option_names,
    parser_at_fault,
    parser_of_command,
    set_callbacks,
    started_run,
    state_key,
    trainer_of,
    validation_loaders,
)

ROOT = Path(lightning_chex.__file__).parent


class Reached(Exception):
    """The command line is parsed."""


class Transferring(TinyTask):
    """Changes batches on their way, as the tasks of this package do."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch


class KeepingTask(TinyTask):
    """Its checkpoints hold its settings."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__(lr=lr)
        self.save_hyperparameters()


def parsed(*bases: type, path: Path, parser: type = Parser) -> LightningCLI:
    """A command line that stops before anything is built."""
    found = []

    class Stopping(*bases):
        def before_instantiate_classes(self):
            found.append(self)
            raise Reached

    with pytest.raises(Reached), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments from Python
        Stopping(KeepingTask, TinyData, args=["validate", f"--ckpt_path={path}"], parser_class=parser)
    return found[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Of a task with a learning rate of its own, and of a callback."""
    trainer = tiny_trainer(tmp_path_factory.mktemp("made"), Kept())
    trainer.strategy.connect(KeepingTask(lr=0.25))
    trainer.save_checkpoint(Path(trainer.default_root_dir) / "x.ckpt")
    return Path(trainer.default_root_dir) / "x.ckpt"


class Kept(pl.Callback):
    def state_dict(self):
        return {"kept": 1}


class Watch(pl.Callback):
    """Calls a function at the first batch of a validation or a prediction."""

    def __init__(self, function) -> None:
        self.function, self.seen = function, []

    def on_validation_batch_start(self, trainer, *_):
        self.seen.append(self.function(trainer))

    on_predict_batch_start = on_validation_batch_start


def test_a_command_line_takes_weights_alone_from_a_checkpoint(checkpoint):
    theirs, ours = parsed(LightningCLI, path=checkpoint), parsed(WeightsAlone, LightningCLI, path=checkpoint)
    assert theirs.config.validate.model.lr == 0.25, "_parse_ckpt_path leaves settings alone now: WeightsAlone can go"
    assert ours.config.validate.model.lr == 0.05, "_parse_ckpt_path has another name: checkpoints change the settings"


def test_the_parser_of_a_command_writes_its_configuration(checkpoint):
    cli = parsed(WeightsAlone, LightningCLI, path=checkpoint)
    written = yaml.safe_load(parser_of_command(cli).dump(cli.config.validate))
    assert {"model", "data", "trainer"} <= written.keys(), "_parser changed: evaluate keeps no config.yaml"


def test_commands_get_their_options_from_the_method_that_our_parser_overrides(checkpoint):
    asked = []

    class Noting(Parser):
        def add_method_arguments(self, theclass, themethod, **options):
            asked.append(themethod)
            return super().add_method_arguments(theclass, themethod, **options)

    parsed(LightningCLI, path=checkpoint, parser=Noting)
    assert asked == ["fit", "validate", "test", "predict"], (
        "LightningCLI makes the options of its commands in another way: explain --attributor FILE.yaml is not accepted"
    )


def test_an_error_names_the_parser_of_its_command():
    errors = []

    class Noting(LightningArgumentParser):
        def error(self, message, ex=None):
            errors.append(ex)
            raise Reached

    parser, command = Noting(), Noting()
    command.add_argument("--size", type=int)
    parser.add_subcommands().add_subcommand("fit", command)
    with pytest.raises(Reached):
        parser.parse_object({"subcommand": "fit", "fit": {"size": 1, "sise": 2}})
    assert parser_at_fault(errors[0]) is command, "subcommand_parser is gone: errors point to --help of all commands"
    assert parser_at_fault(None) is None


def test_a_parsers_account_is_reduced_to_its_point():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=TinyData | None)
    with pytest.raises(Exception) as told:
        parser.parse_args(["--data=tiny.TinyData", "--data.sise=3"])
    assert len(str(told.value).splitlines()) > 3 and "Does not validate against any" in str(told.value)
    assert concise(str(told.value)).count("\n") == 0 and concise(str(told.value)).endswith("'sise' is not accepted"), (
        "jsonargparse tells its errors in other words: the one line of a bad option is a page"
    )
    account = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'A'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'x.Y':
        Option 'z' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'N'>
  Given value: N(key='z', val='3')"""
    assert concise(account) == "Parser key \"data\": Problem with given class_path 'x.Y': Option 'z' is not accepted"
    assert concise("all is said") == "all is said"


class Refusing(pl.LightningDataModule):
    def __init__(self, size: int = 0) -> None:
        raise KeyError("no such size")


def test_an_error_of_the_data_is_told_without_the_link_that_asked_for_it(place, capsys):
    (place / "t.csv").write_text("image,Befund\na.png,Mass\nb.png,\n")
    error = the_error(capsys, "fit", "--data", "TableDataModule", "--data.table", "t.csv", f"--data.root={place}")
    assert error.startswith(f"error: {place / 't.csv'}: ") or error.startswith("error: t.csv: "), error


def test_what_a_constructor_raises_is_a_value_error_of_the_parser():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    config = parser.parse_args([f"--data={__name__}.Refusing"])
    with pytest.raises(ValueError, match="no such size"):  # else bad settings of model and data end in a traceback
        parser.instantiate_classes(config)


def test_an_error_in_restoring_is_told_from_others(checkpoint, tmp_path):
    class Other(KeepingTask):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    with pytest.raises(RuntimeError) as told:
        tiny_trainer(tmp_path).validate(Other(), TinyData(), ckpt_path=checkpoint, weights_only=True)
    assert arose_in_restoring(told.value), (
        "Lightning restores checkpoints elsewhere: one that does not fit ends in a traceback instead of one line"
    )
    assert not arose_in_restoring(RuntimeError("another"))


def test_the_warnings_that_are_switched_off_are_worded_as_before(checkpoint, tmp_path):
    with pytest.warns(UserWarning, match=FOLDER_IN_USE):  # else a run that is gone on with warns of its own folder
        tiny_trainer(tmp_path, ModelCheckpoint(checkpoint.parent), enable_checkpointing=True, max_steps=1).fit(
            TinyTask(), TinyData()
        )
    with pytest.warns(UserWarning, match=CALLBACKS_LEFT_OUT):  # else explain warns of the callbacks of the training
        tiny_trainer(tmp_path).validate(TinyTask(), TinyData(), ckpt_path=checkpoint, verbose=False, weights_only=True)


def test_states_that_cannot_be_told_apart_are_the_error_that_is_known(tmp_path):
    with pytest.raises(RuntimeError, match=SAME_STATE):  # else two unnamed IBACallbacks end in a traceback
        tiny_trainer(tmp_path, IBACallback(), IBACallback())


def test_messages_of_no_use_begin_as_is_known(tmp_path, caplog, monkeypatch):
    # the command line, in an earlier test, has silenced them
    monkeypatch.setattr(logging.getLogger("pytorch_lightning.utilities.rank_zero"), "filters", [])
    # and Lightning says some things once in a process
    monkeypatch.setattr(data_connector, "warning_cache", WarningCache())
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        tiny_trainer(tmp_path, logger=True).validate(Transferring(), datamodule=TinyData(), verbose=False)
    said = [str(one.message) for one in caught] + caplog.messages
    for message in OF_NO_USE:  # one that is no longer said need not be silenced; one that is said otherwise is shown
        assert any(re.match(message, one) for one in said), f"{message!r} is not said any more, or in other words"


def test_wandb_is_not_given_a_setting_that_it_warns_of(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert "anonymous" in logger._wandb_init, "_wandb_init changed: W&B may warn of what nobody has set"
    let_start_quietly([logger, CSVLogger(tmp_path), DummyLogger()])
    assert "anonymous" not in logger._wandb_init
    asked = WandbLogger(save_dir=tmp_path, offline=True, anonymous=True)
    let_start_quietly([asked])
    assert asked._wandb_init["anonymous"] == "allow"


def test_a_wandb_run_is_known_once_it_has_begun(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert started_run(logger) is None and started_run(CSVLogger(tmp_path)) is None
    run = logger.experiment
    assert started_run(logger) is run, "_experiment changed: refused commands leave empty W&B runs"
    run.finish()


def test_callbacks_take_part_when_they_are_in_the_trainers_list(tmp_path):
    added, replacing = Watch(lambda trainer: "called"), Watch(lambda trainer: "called")
    trainer = tiny_trainer(tmp_path)
    callbacks_of(trainer).append(added)
    trainer.validate(TinyTask(), TinyData(), verbose=False)
    assert added.seen, "trainer.callbacks is a copy: fit lacks FiniteWeights and last.ckpt, predict its table"
    set_callbacks(trainer, [replacing])
    trainer.validate(TinyTask(), TinyData(), verbose=False)
    assert len(replacing.seen) == len(added.seen), (
        "trainer.callbacks cannot be replaced: callbacks of the training disturb explain, and averaged weights are "
        "swapped out before IBACallback explains them"
    )


def test_a_fast_dev_run_is_known(tmp_path):
    assert is_trial(tiny_trainer(tmp_path, fast_dev_run=True)) and not is_trial(tiny_trainer(tmp_path)), (
        "trainer.fast_dev_run changed: a fast_dev_run writes last.ckpt and run.json"
    )


def test_a_module_says_whether_it_has_a_trainer(tmp_path):
    task, trainer = TinyTask(), tiny_trainer(tmp_path)
    assert trainer_of(task) is None, "_trainer changed: checkpoints are not compared with the data before a run begins"
    with pytest.raises(RuntimeError):  # which is why it is needed
        _ = task.trainer
    task.trainer = trainer
    assert trainer_of(task) is trainer


def test_the_first_process_is_known_before_there_is_a_trainer(monkeypatch):
    assert isinstance(rank_zero_only.rank, int), "rank_zero_only.rank is gone: every process holds the run's folder"
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not is_process_0()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert is_process_0()


def test_states_of_callbacks_keep_their_names():
    assert state_key(Kept(), name="iba") == "Kept{'name': 'iba'}", (
        "_generate_state_key makes other names: feature statistics in checkpoints of before are not found"
    )


@pytest.mark.parametrize("run", ["validate", "predict"])
def test_the_batch_sampler_of_the_loop_that_runs(tmp_path, run):
    class Data(TinyData):
        predict_dataloader = TinyData.test_dataloader

    class Predicting(TinyTask):
        def predict_step(self, batch, batch_idx):
            return self(batch["image"])

    watch = Watch(lambda trainer: batch_sampler_of(trainer, 0))
    getattr(tiny_trainer(tmp_path, watch), run)(Predicting(), datamodule=Data())
    assert {type(found) for found in watch.seen} == {BatchSampler}, (
        "_active_loop, _combined_loader or _batch_sampler changed: in distributed runs repeated images count twice"
    )


def test_lightnings_wrapped_sampler_deals_images_out_in_turn():
    assert (DistributedSampler, DistributedSamplerWrapper) == SAMPLERS
    sampler = DistributedSamplerWrapper(SequentialSampler(range(5)), num_replicas=2, rank=1, shuffle=False)
    assert list(sampler) == [1, 3, 0] and (sampler.num_replicas, sampler.rank, len(sampler.dataset)) == (2, 1, 5), (
        "DistributedSamplerWrapper deals in another order: other images than the repeated ones are left out"
    )


def test_the_state_of_model_checkpoint_names_its_files():
    state = ModelCheckpoint("folder").state_dict()
    assert {"dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"} <= state.keys(), (
        "ModelCheckpoint keeps its paths under other names: those of a moved run do not follow it, and a checkpoint of "
        "a stranger could have files deleted"
    )
    assert stray_path({"x": state | {"best_model_path": "a/../b"}})


def private_names() -> set[str]:
    """Names with a leading underscore that Lightning's classes and its command line use for themselves."""
    things = [pl.LightningModule(), pl.Trainer(logger=False, barebones=True), pl.Callback(), pl.LightningDataModule()]
    names = {name for thing in things for name in dir(thing)} | set(dir(LightningArgumentParser()))
    source = ast.parse(Path(lightning_cli.__file__).read_text())
    names |= {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)} | set(dir(LightningCLI))
    names |= {"_combined_loader", "_batch_sampler"}  # of loops and samplers
    return {name for name in names if name.startswith("_") and not name.startswith("__")} - set(dir(nn.Module()))


def test_no_other_file_touches_a_private_part():
    private, found = private_names(), []
    assert {"_parse_ckpt_path", "_trainer", "_active_loop", "_generate_state_key"} <= private
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = {
                ast.Attribute: lambda n: n.attr, ast.FunctionDef: lambda n: n.name, ast.Constant: lambda n: n.value
            }.get(type(node), lambda n: None)(node)  # fmt: skip
            if isinstance(name, str) and name in private:
                found.append((path.relative_to(ROOT).as_posix(), name))
    assert {path for path, _ in found} == {"lightning_private.py"}, found


def test_the_names_of_all_options_are_known():
    parser = Parser(prog="x")
    parser.add_argument("--method", "-m")
    assert "--method" in option_names(parser) and "-m" not in option_names(parser)


def test_the_declared_type_of_an_option_is_found():
    parser = Parser(prog="x")
    parser.add_argument("--method", type=Attributor | None)
    assert Attributor in get_args(declared_type(parser, "method")), (
        "jsonargparse keeps the type of an option elsewhere: --attributor.steps without a class is not explained"
    )
    assert declared_type(parser, "other") is None


@pytest.mark.parametrize("given", ["loaders", "data module", "nothing"])
def test_validation_loaders_are_known_when_a_training_begins(tmp_path, given):
    seen = []

    class Looking(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            seen.append(validation_loaders(trainer))

    data = TinyData()
    loaders = [data.val_dataloader()]
    source = {
        "loaders": (data.train_dataloader(), loaders),
        "data module": (data,),
        "nothing": (data.train_dataloader(),),
    }
    tiny_trainer(tmp_path, Looking()).fit(TinyTask(), *source[given])
    message = "Lightning keeps its loaders elsewhere: IBACallback cannot infer classes before the first step"
    if given == "loaders":
        assert len(seen[0]) == 1 and seen[0][0] is loaders[0], message
    else:
        assert [own.dataset for own in seen[0]] == ([data.val] if given == "data module" else []), message
