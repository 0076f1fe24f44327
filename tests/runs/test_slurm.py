"""Trainings in batch jobs: a signal stops them, the job is requeued, and the next start resumes the same run."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
import torch
import yaml
from processes import together
from test_resume import WANDB, configuration

from lightning_chex.cli.main import main
from lightning_chex.runs.slurm import job_id, requeue

pytestmark = pytest.mark.filterwarnings("ignore")

JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1"}


@pytest.fixture
def place(place, monkeypatch):
    """An empty working folder with a configuration, and a ``scontrol`` on the PATH that notes its arguments."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    (place / "bin").mkdir()
    scontrol(place, 'echo "$@" >> "$SCONTROL_LOG"')
    monkeypatch.setenv("PATH", f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SCONTROL_LOG", str(place / "scontrol.log"))
    (place / "work" / "mine.yaml").write_text(yaml.safe_dump(configuration(False)))
    (place / "work" / "wandb.yaml").write_text(
        yaml.safe_dump(configuration(WANDB) | {"data": {"class_path": "tiny.TinyData"}})
    )
    return place


def scontrol(place: Path, script: str) -> None:
    path = place / "bin" / "scontrol"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def in_job(monkeypatch, **more: str) -> None:
    for name, value in (JOB | more).items():
        monkeypatch.setenv(name, value)


def fit(*arguments: str, at: str = "-1,0,SIGKILL", config: str = "mine.yaml") -> int:
    """Run ``fit`` and return its exit status; a signal is sent in the step that ``at`` names."""
    os.environ["AT"] = at
    try:
        main(["fit", "--config", config, *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def state(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert fit(*arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_a_signalled_job_is_requeued_and_resumes_its_run(place, monkeypatch, capsys, name):
    in_job(monkeypatch)
    status = fit("--ckpt_path=auto", at=f"1,0,{name}", config="wandb.yaml")
    assert status == 128 + signal.Signals[name]
    assert "requeue 4711" in (place / "scontrol.log").read_text()
    err = capsys.readouterr().err
    assert f"stopped by {name}" in err and "goes on from the newest state" in err
    run = Path("runs/lightning_chex/slurm-4711")
    assert state(run / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert not list(Path().rglob("hpc_ckpt*")) and not list(Path("runs").glob("*.ckpt"))
    assert fit("--ckpt_path=auto", config="wandb.yaml") == 0
    assert [path.name for path in Path("runs/lightning_chex").iterdir()] == ["slurm-4711"]
    wandb = list(Path("runs/wandb").glob("offline-run-*"))
    assert {path.name.split("-", 3)[3] for path in wandb} == {"slurm-4711"} and len(wandb) <= 2
    assert state(run / "checkpoints" / "last.ckpt")["global_step"] == 8
    assert json.loads((run / "run.json").read_text())["finished"]["steps"] == 8
    assert fit("--ckpt_path=auto", config="wandb.yaml") == 0  # nothing is left to do
    assert (place / "scontrol.log").read_text().count("requeue") == 1


def test_twenty_later_jobs_inherit_nothing(place, monkeypatch):
    in_job(monkeypatch)
    fit("--trainer.max_epochs=1", "--run=reference", "--trainer.default_root_dir=apart")
    expected = state(Path("apart/reference/checkpoints/last.ckpt"))["state_dict"]
    assert fit("--ckpt_path=auto", at="1,0,SIGUSR1") == 128 + signal.SIGUSR1
    foreign = Path("runs/slurm-4711/checkpoints/last.ckpt")
    Path("runs/hpc_ckpt_1.ckpt").write_bytes(foreign.read_bytes())  # as earlier versions have left it
    for job in range(20):
        in_job(monkeypatch, SLURM_JOB_ID=str(5000 + job))
        assert fit("--ckpt_path=auto", "--trainer.max_epochs=1") == 0
        own = state(Path(f"runs/slurm-{5000 + job}/checkpoints/last.ckpt"))
        assert own["global_step"] == 2
        assert all(torch.equal(value, own["state_dict"][name]) for name, value in expected.items())


def test_a_task_of_an_array_has_a_run_of_its_own(place, monkeypatch):
    for task in ("0", "1"):
        in_job(monkeypatch, SLURM_JOB_ID=f"480{task}", SLURM_ARRAY_JOB_ID="4800", SLURM_ARRAY_TASK_ID=task)
        assert fit("--ckpt_path=auto", at="0,0,SIGUSR2") == 128 + signal.SIGUSR2
        assert Path(f"runs/slurm-4800_{task}/checkpoints/last.ckpt").exists()
    assert (place / "scontrol.log").read_text().split() == ["requeue", "4800_0", "requeue", "4800_1"]


@pytest.mark.parametrize(
    ("script", "words"), [("echo no rights >&2; exit 3", "scontrol ended with 3: no rights"), (None, "not on the PATH")]
)
def test_without_scontrol_one_warning_is_given_and_the_state_kept(place, monkeypatch, capsys, script, words):
    in_job(monkeypatch)
    if script is None:
        monkeypatch.setenv("PATH", str(place))
    else:
        scontrol(place, script)
    assert fit("--ckpt_path=auto", at="1,0,SIGUSR1") == 128 + signal.SIGUSR1
    assert words in capsys.readouterr().err
    assert state(Path("runs/slurm-4711/checkpoints/last.ckpt"))["global_step"] == 3


def test_a_job_that_is_cancelled_is_not_requeued(place):
    scontrol(place, 'echo "$@" >> "$SCONTROL_LOG"; echo "JobState=CANCELLED Reason=None"')
    assert "not requeued" in requeue("1", signal.SIGTERM)
    assert (place / "scontrol.log").read_text() == "show job 1\n"
    assert requeue("1", signal.SIGUSR1) == "job 1 is requeued"


def test_the_id_of_a_job():
    assert job_id({}) is None
    assert job_id({"SLURM_JOB_ID": "7"}) == "7"
    assert job_id({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "2"}) == "8_2"
    assert job_id({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive"}) is None
    assert job_id({"SLURM_JOB_ID": "7; rm -r x"}) is None


def test_a_signal_outside_of_slurm_saves_and_ends(place, capsys):
    assert fit("--run=mine", at="1,1,SIGTERM") == 143
    assert not (place / "scontrol.log").exists()
    assert state(Path("runs/mine/checkpoints/last.ckpt"))["global_step"] == 4
    assert fit("--run=mine", "--ckpt_path=auto") == 0
    assert state(Path("runs/mine/checkpoints/last.ckpt"))["global_step"] == 8


def test_names_that_cannot_be_are_refused(place, capsys):
    for name in ("../up", "a/b", "..", ".hidden", "-x", "", "a" * 65, "a b"):
        assert "cannot be the name of a folder" in refused(capsys, f"--run={name}"), name
    assert "give --run NAME" in refused(capsys, "--ckpt_path=auto")
    assert "--ckpt_path auto" in refused(capsys, "--ckpt_path=last")
    assert not Path("runs").exists()
    assert fit("--run=mine", "--trainer.max_epochs=1") == 0
    assert "--ckpt_path auto resumes it" in refused(capsys, "--run=mine")
    assert "both name a run" in refused(capsys, "--run=mine", "--ckpt_path=last")
    assert "not of one run" in refused(capsys, "--ckpt_path=hpc")


def test_another_backbone_is_refused_and_another_learning_rate_is_told(place, capsys, caplog):
    config = configuration(False)
    config["model"] = {"class_path": "ClassificationTask", "init_args": {"backbone": "test_resnet", "lr": 0.001}}
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": 1, "limit_val_batches": 1}
    (place / "work" / "mine.yaml").write_text(yaml.safe_dump(config))
    assert fit("--run=mine", "--trainer.max_epochs=1") == 0
    line = refused(capsys, "--run=mine", "--ckpt_path=auto", "--model.backbone=resnet18")
    assert "model.backbone='test_resnet', not 'resnet18'" in line
    caplog.set_level("INFO")
    assert fit("--run=mine", "--ckpt_path=auto", "--model.lr=0.5") == 0
    assert "model.lr=0.5 instead of 0.001" in caplog.text and "no effect" in caplog.text


def stopped_on_one_rank(folder: Path) -> tuple:
    """Send the signal to the last process alone; resume, and say what each has seen and drawn."""
    import random

    import numpy as np
    from pytorch_lightning.utilities.exceptions import SIGTERMException
    from runs.test_stop_on_signal import Recording, SignalAt, SmallBatches
    from tiny import tiny_trainer

    from lightning_chex.runs import keep_newest_state

    rank = int(os.environ.get("LOCAL_RANK", "0"))
    # set by seed_everything in an earlier test: Lightning would give all processes this seed when it connects them
    os.environ.pop("PL_GLOBAL_SEED", None)

    def run(name: str, moment: int, resume: Path | None) -> tuple:
        torch.manual_seed(rank)
        random.seed(rank)
        np.random.seed(rank)
        task = Recording()
        task.on_validation_epoch_end = lambda: None  # it counts all images
        callbacks = [SignalAt(moment, signal.SIGUSR1)] if rank and moment else []
        trainer = tiny_trainer(
            folder / name, *callbacks, max_epochs=3, devices=2, strategy="ddp", enable_checkpointing=True,
            num_sanity_val_steps=0,
        )  # fmt: skip
        keep_newest_state(trainer)
        try:
            trainer.fit(task, datamodule=SmallBatches(), ckpt_path=resume)
        except SIGTERMException:
            return task.seen, None
        return task.seen, (random.random(), float(np.random.rand()), float(torch.rand(())))

    whole = run("whole", 0, None)
    first = run("stopped", 12, None)
    rest = run("stopped", 0, folder / "stopped" / "checkpoints" / "last.ckpt")
    return whole, first, rest


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_batch(tmp_path):
    ranks = together(2, stopped_on_one_rank, tmp_path / "results", tmp_path, seconds=100)
    assert len({len(first[0]) for _, first, _ in ranks}) == 1
    for whole, first, rest in ranks:
        assert first[1] is None and rest[1] is not None and 0 < len(first[0]) < len(whole[0])
        assert first[0] + rest[0] == whole[0]
        assert rest[1] == whole[1]
    assert ranks[0][0][1] != ranks[1][0][1]  # each draws numbers of its own
