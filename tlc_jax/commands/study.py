"""Run a grid of pretraining, finetuning and compression jobs, each once.

Every size in study.sizes is pretrained under `budget` for each of study.pretrain_seeds, and like every encoder of
study.encoders finetuned on every task for each of study.seeds and compressed by every recipe (a recipe that finetunes
starts at the encoder); results.jsonl gets a row for each compressed model. Every pretrained size is
analyzed under each recipe of study.analyses, as `tlc analyze` does it. Jobs that are done are not done again, so a
study that was killed goes on where it was; a job that fails does not stop the others, and is tried again by the next
run. --list prints the jobs, each with its number, state, name and the numbers of those that it needs; --job=K runs job
K and what it needs, for array jobs of a scheduler. Several processes can work on one study: each takes the jobs that no
other is running.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.commands import analyze, compress, finetune, pretrain, translate
from tlc_jax.config import Config
from tlc_jax.core import distributed as processes
from tlc_jax.core.errors import InputError, StoppedEarly, TrainingFailed
from tlc_jax.core.files import Lock, read_json, write_json, write_text
from tlc_jax.runs import session
from tlc_jax.runs.workdir import InUse, claim
from tlc_jax.study.jobs import Job, expand, needed_first

log = logging.getLogger(__name__)

_RUN = {
    "pretrain": pretrain.run,
    "translate": translate.run,
    "finetune": finetune.run,
    "compress": compress.run,
    "analyze": analyze.run,
}


def run(config: Config, workdir: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the study, one job of it, or lists its jobs."""
    jobs = expand(config, workdir)
    if options.get("list"):
        for job in jobs:
            print(
                job.number,
                state(job, jobs),
                job.name,
                ",".join(map(str, job.needs)) or "-",
                sep="\t",
            )
        return {}
    chosen = jobs
    if (number := options.get("job")) is not None:
        if not 0 <= number < len(jobs):
            raise InputError(
                f"--job={number}: this study has jobs 0 to {len(jobs) - 1}; see --list"
            )
        chosen = needed_first(jobs[number], jobs)
    session.set_up(config)
    claim_study(config, workdir)
    for position, job in enumerate(chosen, start=1):
        if not job.done:
            session.say(f"[{position}/{len(chosen)}] {job.name}")
            _run_job(job, jobs)
            processes.barrier()  # so that all find the same files
            _write_down(jobs, workdir)
    _write_down(jobs, workdir)
    _check_end(chosen)
    result = {"stage": "study", "jobs": len(jobs), "done": sum(job.done for job in jobs)}
    session.say(f"{result['done']} of {len(jobs)} jobs are done: tlc report --workdir={workdir}")
    return result


def _check_end(chosen: list[Job]) -> None:
    """Says what is missing at the end, if anything is."""
    failed = [job.name for job in chosen if not job.done and job.error_file.exists()]
    if failed:
        raise TrainingFailed(
            f"{len(failed)} of {len(chosen)} jobs failed: {', '.join(failed)}; "
            "each one's error.txt says why, and the same command tries them again"
        )
    if missing := [job.name for job in chosen if not job.done]:
        raise StoppedEarly(
            f"left to other processes, or waiting for them: {', '.join(missing)}; run the same command again"
        )


def claim_study(config: Config, workdir: Path) -> None:
    """Writes the study's config, or checks that it is still the same. Jobs lock their own workdirs, so that several
    processes can share a study."""
    if not processes.first():
        return
    try:
        claim(workdir, config).close()
    except (
        InUse
    ):  # another job of this study is being started at this moment, and checks the same thing
        log.debug("%s is being claimed by another process", workdir)


def state(job: Job, jobs: list[Job]) -> str:
    """done, failed, running, waiting (for other jobs) or ready."""
    if job.done:
        return "done"
    if job.running:
        return "running"
    if job.error_file.exists():
        return "failed"
    return "ready" if all(jobs[needed].done for needed in job.needs) else "waiting"


def _run_job(job: Job, jobs: list[Job]) -> None:
    """Runs a job; what it raises is written to its error.txt, except where the whole study is to stop.

    A job that another process is running, or that needs one, is left alone: several processes can work on one study.
    """
    needed = [jobs[number] for number in job.needs if not jobs[number].done]
    job.workdir.mkdir(parents=True, exist_ok=True)
    if needed:
        if failed := [other.name for other in needed if other.error_file.exists()]:
            _note_error(job, f"needs {', '.join(failed)}, which failed\n")
        return
    if processes.first():
        job.error_file.unlink(missing_ok=True)
    try:
        _RUN[job.stage](job.config, job.workdir, {})
    except InUse as error:
        session.say(f"{job.name} is left to another process ({error})")
    except (StoppedEarly, KeyboardInterrupt):
        raise
    except (InputError, TrainingFailed) as error:
        _note_error(job, f"{error}\n")
        session.say(f"{job.name} failed: {error}")
    except Exception as error:
        if processes.several():
            raise  # the others may not have met it, and wait
        _note_error(job, traceback.format_exc())
        session.say(f"{job.name} failed: {type(error).__name__}: {error}; the study goes on")


def _note_error(job: Job, text: str) -> None:
    if processes.first():
        job.error_file.write_text(text)


def _write_down(jobs: list[Job], workdir: Path) -> None:
    """Makes study.json and results.jsonl anew from what the jobs left: nothing to keep in step, nothing to lose."""
    if not processes.first():
        return
    # One process at a time, or one that read early and wrote late would drop a row of another.
    with Lock(workdir / ".write-down.lock"):
        _write_tables(jobs, workdir)


def _write_tables(jobs: list[Job], workdir: Path) -> None:
    rows = [
        {
            "number": job.number,
            "name": job.name,
            "state": state(job, jobs),
            "error": job.error_file.read_text().strip() if job.error_file.exists() else None,
        }
        for job in jobs
    ]
    write_json(workdir / "study.json", {**session.provenance(), "jobs": rows})
    results = [_row(job, jobs) for job in jobs if job.stage == "compress" and job.done]
    write_text(workdir / "results.jsonl", "".join(json.dumps(row) + "\n" for row in results))


_MEASURED = (
    *(
        "layers",
        "hidden",
        "params",
        "params_nonembedding",
        "recipe",
        "sparsity",
        "sparsity_all",
        "bits",
        "nonzero",
    ),
    *(
        "bytes_ideal",
        "bytes_paper",
        "bytes_artifact",
        "bytes_checkpoint",
        "accuracy",
        "accuracy_by_split",
        "valid_loss",
    ),
    *("when",),
)
_OF_TRANSLATORS = (
    *(
        "bleu",
        "bleu_signature",
        "chrf",
        "chrf_signature",
        "bleu_tokenized",
        "approx_bleu",
        "token_accuracy",
    ),
    *("sentences", "cut"),
)


def _row(job: Job, jobs: list[Job]) -> dict[str, Any]:
    """One line of results.jsonl: a compressed model, and where it comes from."""
    result = read_json(job.workdir / "result.json")
    # None where an encoder came from elsewhere: how it was trained is not known here.
    trained = next(
        (jobs[n] for n in job.ancestors(jobs) if jobs[n].stage in ("pretrain", "translate")), None
    )
    translator = trained is not None and trained.stage == "translate"
    row = {"job": job.name, "kind": "translator" if translator else "encoder", **job.labels}
    row |= {
        name: result.get(name) for name in (*_MEASURED, *(_OF_TRANSLATORS if translator else ()))
    }
    row |= {name: value for name, value in result.items() if name.startswith("latency_ms_")}
    if timed := result.get("latency"):
        row |= {f"latency_{name}": timed[name] for name in ("length", "computes", "device")}
    # Counted from the recipe and not from the result of a packed model: the recipe is the key that reports group by.
    row["recipe"] = job.config.recipe
    if trained is None:
        row |= dict.fromkeys(("budget_seconds", "steps", "train_seconds"))
    elif job.labels["init"] == "pretrained":
        training = read_json(trained.workdir / "result.json")
        row |= {
            "budget_seconds": trained.config.budget.seconds,
            "steps": training["steps"],
            "train_seconds": training["train_seconds"],
            "pretrain_valid_loss": training["valid_loss"],
            "pretrain_valid_perplexity": training["valid_perplexity"],
        }
    else:
        row |= dict.fromkeys(("budget_seconds", "steps", "train_seconds"), 0)
    return row
