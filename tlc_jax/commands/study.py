"""Run a grid of pretraining, finetuning and compression jobs, each once.

Every size of study.sizes is pretrained under `budget` for each of study.pretrain_seeds. Each of
these, and every encoder of study.encoders, is finetuned on every task for each of study.seeds and
compressed by every recipe; a recipe that finetunes starts at the encoder. results.jsonl gets a row
for each compressed model. Every pretrained size is analyzed under each recipe of study.analyses, as
`tlc analyze` does it. study.vary names axes: settings of one stage that the study varies, such as
the batch size of pretraining. Jobs that are done are not done again, so the same command continues
a study that was killed. A failed job does not stop the others, and the next run tries it again.
--list prints the jobs, each with its number, state, name and the numbers of the jobs that it needs;
--job=K runs job K and the jobs that it needs, for array jobs of a scheduler. Several processes can
work on one study: each takes jobs that no other is running.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.commands import finetune, run_command
from tlc_jax.config import Config
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import existing
from tlc_jax.runs import session
from tlc_jax.study.jobs import expand, needed_first, state
from tlc_jax.study.run_jobs import claim_study, run_jobs


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the study, one job of it, or lists its jobs."""
    jobs = expand(config, workdir)
    # Listing writes nothing: not even the workdir is made.
    if options.get("list"):
        exists = existing(workdir / "jobs")
        for job in jobs:
            needs = ",".join(map(str, job.needs)) or "-"
            print(job.number, state(job, jobs, exists), job.name, needs, sep="\t")
        return {}
    chosen = jobs
    if (number := options.get("job")) is not None:
        if not 0 <= number < len(jobs):
            raise InputError(
                f"--job={number}: this study has jobs 0 to {len(jobs) - 1}; see --list"
            )
        chosen = needed_first(jobs[number], jobs)
    session.set_up(config, workdir=workdir)
    claim_study(config, workdir)
    shared = finetune.Shared()

    def run_job(name: str, config: Config, workdir: Path) -> Any:
        nonlocal shared
        if name == "finetune":
            return finetune.run_sharing(config, workdir, shared)
        shared = finetune.Shared()  # frees the memory for the other command
        return run_command(name, config, workdir)

    # Passed down, because the study lies below the commands and must not import them.
    run_jobs(chosen, jobs, workdir, run_job)
    result = {"stage": "study", "jobs": len(jobs), "done": sum(job.done for job in jobs)}
    session.say(f"{result['done']} of {len(jobs)} jobs are done: tlc report --workdir={workdir}")
    return result
