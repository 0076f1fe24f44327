"""SLURM jobs: the name of the run of a job, and the requeue of a job that was asked to stop."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping

from lightning_chex.messages import one_line

_SECONDS = 60
"""How long ``scontrol`` may take; the default of SLURM's own commands for an answer of the controller is shorter."""


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the id by which ``scontrol`` knows this job, ``ARRAY_TASK`` within an array; a requeue does not change it.

    Returns:
        None outside of SLURM and in an interactive job, which nobody starts anew.
    """
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    found = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")
    return found if re.fullmatch(r"\d+(_\d+)?", found) else None


def requeue(job: str, number: int) -> str:
    """Have SLURM start this job anew.

    A job that is cancelled or at its time limit gets SIGTERM too, and must not come back: after that signal the job is
    requeued only if SLURM does not list it as ending.

    Args:
        job: its id.
        number: of the signal that has stopped the training.

    Returns:
        A sentence that says what was done, or why nothing was.
    """
    if number == signal.SIGTERM:
        listed = _scontrol("show", "job", job)
        if isinstance(listed, str) and re.search(r"JobState=(CANCELLED|COMPLETING|TIMEOUT|PREEMPTED)", listed):
            return f"job {job} is ending and is not requeued"
    done = _scontrol("requeue", job)
    if isinstance(done, str):
        return f"job {job} is requeued"
    return f"warning: job {job} could not be requeued ({done}); the state is saved: submit the same script again"


def _scontrol(*arguments: str) -> str | Exception:
    """Call ``scontrol``; its output, or why there is none."""
    try:
        done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return RuntimeError("scontrol is not on the PATH")
    except (OSError, subprocess.SubprocessError) as error:
        return RuntimeError(one_line(str(error)))
    if done.returncode:
        return RuntimeError(f"scontrol ended with {done.returncode}: {one_line(done.stderr.strip())}")
    return done.stdout
