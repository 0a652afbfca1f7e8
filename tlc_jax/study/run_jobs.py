"""Runs the jobs of a study, each once, beside other processes that work on the same study."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlc_jax.config import Config
from tlc_jax.core import distributed
from tlc_jax.core.errors import InputError, StoppedEarly, TrainingFailed
from tlc_jax.runs import session
from tlc_jax.runs.workdir import MAY_DIFFER, InUse, claim, read_config
from tlc_jax.study import rows
from tlc_jax.study.jobs import Job
from tlc_jax.study.vary import gained

RunCommand = Callable[[str, Config, Path], Any]


def run_jobs(chosen: list[Job], jobs: list[Job], workdir: Path, run_command: RunCommand) -> None:
    """Runs those of the chosen jobs that are not done, and writes the study's results after each.

    Args:
      chosen: jobs to run, each after those that it needs.
      jobs: all jobs of the study.
      workdir: folder of the study.
      run_command: runs the command of a name with a config, in a workdir.

    Raises:
      TrainingFailed: at the end, a job failed.
      StoppedEarly: at the end, a job is left to another process.
    """

    def write_rows() -> None:
        if distributed.first():
            rows.write(jobs, workdir, session.provenance())

    for position, job in enumerate(chosen, start=1):
        if not job.done:
            session.say(f"[{position}/{len(chosen)}] {job.name}")
            _run_job(job, jobs, run_command)
            distributed.barrier()  # so that all processes find the same files
            write_rows()
    write_rows()
    missing = [job for job in chosen if not job.done]
    if failed := [job.name for job in missing if job.error_file.exists()]:
        raise TrainingFailed(
            f"{len(failed)} of {len(chosen)} jobs failed: {', '.join(failed)}; "
            "each one's error.txt says why, and the same command tries them again"
        )
    if missing:
        raise StoppedEarly(
            "left to other processes, or waiting for them: "
            f"{', '.join(job.name for job in missing)}; run the same command again"
        )


def claim_study(config: Config, workdir: Path) -> None:
    """Writes the study's config, or checks that it is still the same but for axes that it gained.

    Jobs lock their own workdirs, so several processes can share a study.
    """
    if distributed.first():
        # The claim of another process that starts this study just now checks the same thing.
        path, free = workdir / "config.json", [*MAY_DIFFER, "study.vary_points"]
        if path.exists():
            free += gained(read_config(path).study.vary, config.study.vary)
        with contextlib.suppress(InUse):
            claim(workdir, config, free).close()


def _run_job(job: Job, jobs: list[Job], run_command: RunCommand) -> None:
    """Runs a job and writes its failure to its error.txt, unless the whole study is to stop.

    A job is left alone where another process runs it, or has yet to finish a job that it needs.
    """
    needed = [jobs[number] for number in job.needs if not jobs[number].done]
    job.workdir.mkdir(parents=True, exist_ok=True)
    if needed:
        if failed := [other.name for other in needed if other.error_file.exists()]:
            _write_error(job, f"needs {', '.join(failed)}, which failed\n")
        return
    if distributed.first():
        job.error_file.unlink(missing_ok=True)
    try:
        run_command(job.command, job.config, job.workdir)
    except InUse as error:
        session.say(f"{job.name} is left to another process ({error})")
    except StoppedEarly:
        raise  # ends the whole study, with everything saved
    except (InputError, TrainingFailed) as error:
        _write_error(job, f"{error}\n")
        session.say(f"{job.name} failed: {error}")
    except Exception as error:
        # Other processes of this run may not have failed, and would wait for this one for ever.
        if distributed.several():
            raise
        _write_error(job, traceback.format_exc())
        session.say(f"{job.name} failed: {type(error).__name__}: {error}; the study goes on")


def _write_error(job: Job, text: str) -> None:
    if distributed.first():
        job.error_file.write_text(text)
