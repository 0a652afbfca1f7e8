"""The files of a study: results.jsonl and study.json written from its jobs, and a study read back.

Reading needs no JAX, so reports can be made anywhere.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlc_jax.core import json_lines
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import (
    Lock,
    existing,
    is_remote,
    path_of,
    read_json,
    write_json,
    write_text,
)
from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.frontier import group
from tlc_jax.statistics.kinds import ENCODER, KINDS, Kind, Shape, Size
from tlc_jax.statistics.records import (
    POINT,
    Row,
    Seeds,
    Study,
    analysis_row,
    axes_of,
    columns_of,
    kind_of,
    models_of,
    parse_point,
    tidy,
)
from tlc_jax.study.jobs import Job, needed_first, state
from tlc_jax.study.predictions import KeptAnswers

_MEASURED = """
    layers hidden params params_nonembedding recipe sparsity sparsity_all bits nonzero bytes_ideal
    bytes_paper bytes_artifact bytes_checkpoint accuracy accuracy_by_split accuracy_halves
    accuracy_majority valid_examples valid_loss when
"""
_TRANSLATOR_SCORES = """
    bleu bleu_signature chrf chrf_signature bleu_tokenized approx_bleu token_accuracy sentences cut
"""
_REQUIRED = ("layers", "hidden", "params", "task", "recipe", "bytes_artifact", "nonzero", "job")


def write(jobs: list[Job], workdir: Path, provenance: Mapping[str, Any]) -> None:
    """Writes study.json and results.jsonl from the files of the jobs.

    Both are made from scratch each time, so they cannot disagree with the jobs.

    Args:
      jobs: all jobs of the study.
      workdir: folder of the study.
      provenance: command, machine and versions, for study.json.
    """
    # One process at a time, or one that read early and wrote late would drop a row of another.
    with Lock(workdir / ".write-down.lock"):
        exists = existing(workdir / "jobs")
        states = [
            {
                "number": job.number,
                "name": job.name,
                "state": state(job, jobs, exists),
                "error": job.error_file.read_text().strip() if exists(job.error_file) else None,
                **({"points": list(job.points)} if any(job.points.values()) else {}),
            }
            for job in jobs
        ]
        write_json(workdir / "study.json", {**provenance, "jobs": states})
        done = [job for job in jobs if job.command == "compress" and exists(job.result_file)]
        # A job that is the same at several points of the axes has a row for each.
        rows = [
            {**_row(job, jobs), **({POINT: text, **columns_of(point)} if point else {})}
            for job in done
            for text, point in job.points.items()
        ]
        write_text(workdir / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _row(job: Job, jobs: list[Job]) -> dict[str, Any]:
    """The line of results.jsonl of a compressed model."""
    result = _result(job)
    chain = needed_first(job, jobs)
    # None for an encoder that was trained elsewhere, in a way unknown here.
    trained = next((one for one in chain if one.command in ("pretrain", "translate")), None)
    translator = trained is not None and trained.command == "translate"
    names = _MEASURED + (_TRANSLATOR_SCORES if translator else "")
    row = {"job": job.name, "kind": "translator" if translator else "encoder", **job.labels}
    row |= {name: result.get(name) for name in names.split()}
    more = ("latency_ms_", "test_")
    row |= {name: value for name, value in result.items() if name.startswith(more)}
    if timed := result.get("latency"):
        row |= {f"latency_{name}": timed[name] for name in ("length", "computes", "device")}
    # The recipe of the job, not of the result: reports group by it.
    row["recipe"] = job.config.recipe
    if trained is None or job.labels["init"] != "pretrained":
        cost = None if trained is None else 0
        return row | dict.fromkeys(("budget_seconds", "steps", "train_seconds"), cost)
    training = _result(trained)
    for one in chain:
        if early := re.search(r"/checkpoints/(\d+)$", one.config.init.source):
            # The rest is known of the end of the run alone.
            training = {"steps": int(early[1])}
    return row | {
        "budget_seconds": trained.config.budget.seconds,
        "steps": training["steps"],
        "train_seconds": training.get("train_seconds"),
        "pretrain_valid_loss": training.get("valid_loss"),
        "pretrain_valid_perplexity": training.get("valid_perplexity"),
    }


def _result(job: Job) -> dict[str, Any]:
    path = job.result_file
    return _read_once(str(path)) if is_remote(path) else dict(read_json(path))


@functools.cache
def _read_once(path: str) -> dict[str, Any]:
    """The content of a file in object storage, where reading all after each job takes long."""
    return dict(read_json(path_of(path)))


def load(workdir: Path) -> Study:
    """Reads `results.jsonl`, `study.json` and `jobs/*/` of a study; only finished jobs count.

    Raises:
      InputError: results are missing, or a file is damaged.
    """
    path = workdir / "results.jsonl"
    notes: list[str] = []
    # A job that ran again replaces the row that it wrote before.
    rows = {
        (row["job"], row["task"], row["recipe"], row.get(POINT)): row
        for row in read_results(path, notes)
    }
    usable = [row for row in rows.values() if _finite(row[kind_of(row).field])]
    for kind in KINDS.values():
        read, left = (sum(kind_of(row) == kind for row in some) for some in (rows.values(), usable))
        if left < read:
            notes.append(
                f"{read - left} of {read} rows have no finite {kind.score} and are left out"
            )
    by_point = group(usable, lambda row: str(row.get(POINT) or ""))
    if "" not in by_point:
        raise InputError(
            f"{path} holds no evaluated model{' of the base' if usable else ''} yet: "
            "run `tlc study` on this workdir first"
        )
    signatures = sorted({row["bleu_signature"] for row in usable if row.get("bleu_signature")})
    if len(signatures) > 1:
        notes.append(
            "BLEU was computed in several ways, which must not be compared: "
            + ", ".join(signatures)
        )
    configs, results = _files_of_jobs(workdir)
    recorded = _read(workdir / "study.json") if (workdir / "study.json").exists() else {}
    # The first versions wrote the list of jobs alone.
    recorded = {"jobs": recorded} if isinstance(recorded, list) else recorded
    jobs = tuple(recorded.pop("jobs", ()))
    points_of = {job["name"]: job.get("points") for job in jobs}
    # The score is that on the first split.
    splits = {row["job"]: next(iter(row.get("accuracy_by_split") or ("",))) for row in usable}
    folders = {job: workdir / "jobs" / job / "predictions" for job in splits}

    def answers(jobs: Mapping[Seeds, str]) -> KeptAnswers:
        return KeptAnswers(
            {seeds: folders[job] / f"{splits[job]}.npz" for seeds, job in jobs.items()}
        )

    # Each made by itself, because an axis may change the parameters of a size.
    frames = {point: tidy(rows) for point, rows in by_point.items()}

    def at(point: str) -> Study:
        frame = frames.get(point, frames[""].iloc[:0])  # a point may have learning curves alone
        sizes = {(size.layers, size.hidden, size.kind): size for size in frame["size"]}
        found = {
            job: result for job, result in results.items() if point in (points_of.get(job) or [""])
        }
        # In the order of the names, in which the jobs of one kind follow each other.
        curves = [
            _read_curve(workdir / "jobs" / job, configs[job], result, sizes)
            for job, result in found.items()
        ]
        return Study(
            folder=workdir,
            rows=frame,
            models=tuple(models_of(frame, notes, answers)),
            curves=tuple(curve for curve in curves if curve),
            analyses=tuple(_analyses(found, configs, sizes)),
            jobs=jobs,
            recorded=recorded,
            configs=configs,
            results=results,
            notes=(),
            point=axes_of(by_point[""][0]) | parse_point(point),
        )

    texts = {text: None for job in jobs for text in job.get("points") or ()}
    varied = [at(text) for text in {**by_point, **texts} if text]
    settings = read_json(path) if (path := workdir / "config.json").exists() else {}
    return dataclasses.replace(
        at(""),
        varied=tuple(one for one in varied if one.models or one.curves),
        notes=tuple(notes),
        vary=settings.get("study", {}).get("vary", {}),
    )


def _files_of_jobs(workdir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of all jobs, and the results of those that are done, by name."""
    configs, results = {}, {}
    for config in sorted(workdir.glob("jobs/*/config.json")):
        configs[config.parent.name] = _read(config)
        if (result := config.with_name("result.json")).exists():
            results[config.parent.name] = _read(result)
    return configs, results


def _analyses(
    results: Mapping[str, Row], configs: Mapping[str, Row], sizes: Mapping[Shape, Size]
) -> list[dict[str, Any]]:
    """The analyses among finished jobs, by recipe in the study's order, size and seed."""
    rows = [
        analysis_row(
            job, _size(result, ENCODER, result, sizes), int(configs[job].get("seed", 0)), result
        )
        for job, result in results.items()
        if result.get("stage") in ("analyze", "analyse")  # the second in older studies
    ]
    recipes = [row["recipe"] for row in rows]  # in the study's order, which jobs have
    return sorted(rows, key=lambda row: (recipes.index(row["recipe"]), row["size"], row["seed"]))


def read_results(path: Path, notes: list[str]) -> list[Row]:
    """The rows of a results.jsonl.

    Args:
      path: the file.
      notes: gets a line if the last row is cut short.

    Raises:
      InputError: the file does not exist, or a row is damaged.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: give the workdir of a study, or run `tlc study` there first"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            # A kill can tear the last line. The job of that row is not marked done, so nothing is
            # lost. Any other bad line is for the user to know about.
            if number == len(lines):
                notes.append(f"the last line of {path.name} is cut short and left out")
                continue
            raise InputError(
                f"{path} line {number} is not JSON ({error}): remove it and run the study again"
            ) from None
        row = row if isinstance(row, dict) else {}
        if str(row.get("kind") or ENCODER.name) not in KINDS:
            raise InputError(
                f"{path} line {number} has kind {row['kind']!r}; known: {', '.join(KINDS)}"
            )
        missing = [name for name in (*_REQUIRED, kind_of(row).field) if name not in row]
        if missing:
            raise InputError(
                f"{path} line {number} lacks {', '.join(missing)}: "
                "is this the results file of a study?"
            )
        rows.append(row)
        if (axes := axes_of(row)).keys() != axes_of(rows[0]).keys():
            raise InputError(
                f"{path} line {number} has the axes {', '.join(axes) or 'none'}, and line 1 "
                f"{', '.join(axes_of(rows[0])) or 'none'}: run `tlc study` on this workdir again, "
                "which writes all rows of study.vary"
            )
    return rows


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}: remove that job's folder and run the study again") from None


def _size(model: Row, kind: Kind, result: Row, sizes: Mapping[Shape, Size]) -> Size:
    """The size of a model of some layers and hidden width."""
    shape = int(model.get("layers", 0)), int(model.get("hidden", 0)), kind
    return sizes.get(shape) or Size(int(result.get("params", 0)), *shape)


def _read_curve(
    folder: Path, config: Row, result: Row, sizes: Mapping[Shape, Size]
) -> Curve | None:
    """The curve of a training job; None for other jobs and without evaluations."""
    kind = next((k for k in KINDS.values() if folder.name.startswith(f"{k.job}-")), None)
    if kind is None:
        return None
    rows = json_lines.read(folder / "metrics.jsonl")
    # The last point: of the rows of the points before it, unless these are the whole split, or the
    # run is of version 0.1.0.
    last, end = result.get("steps"), {"event": "eval", **result, **result.get("curve_end", {})}
    if not any(row.get("event") == "eval" and row.get("step") == last for row in rows):
        rows.append({**end, "step": last})
    points: list[tuple[int, float, float, Any]] = []
    for row in rows:
        numbers: list[Any] = [row.get(name) for name in ("step", "train_seconds", "valid_loss")]
        if row.get("event") != "eval" or not all(map(_finite, numbers)):
            continue
        # A resumed run writes the steps since its checkpoint again.
        while points and points[-1][0] >= row["step"]:
            points.pop()
        step, seconds, loss = map(float, numbers)
        points.append((int(step), seconds, loss, row.get("approx_bleu")))
    points = [point for point in points if point[0] > 0 and point[1] > 0]  # axes are logarithmic
    if not points:
        return None
    steps, all_seconds, losses, bleus = zip(*points, strict=True)
    vocab = result.get("vocab_size") or config.get("tokenizer", {}).get("vocab_size") or 0
    return Curve(
        size=_size(config.get("model", {}), kind, result, sizes),
        seed=int(config.get("seed", 0)),
        job=folder.name,
        steps=steps,
        seconds=all_seconds,
        losses=losses,
        result=result,
        vocab_size=int(vocab),
        approx_bleus=bleus if all(map(_finite, bleus)) else (),
    )


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
