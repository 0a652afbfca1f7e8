"""Small invented studies on disk, in the files that a real study leaves."""

import itertools
import json
import math
import random
from pathlib import Path

SIZES = {(2, 64): 600_000, (3, 128): 1_700_000, (4, 256): 5_400_000}
RECIPES = {
    "dense": (0.0, 32),
    "quantize:8,per=channel": (0.0, 8),
    "quantize:4,per=channel": (0.0, 4),
    "quantize:4,per=tensor": (0.0, 4),
    "prune:0.6": (0.6, 32),
    "prune:0.9": (0.9, 32),
    "prune:0.6+quantize:8,per=channel": (0.6, 8),
    "prune:0.9+quantize:4,per=channel": (0.9, 4),
}
SECONDS_PER_STEP = {(2, 64): 0.02, (3, 128): 0.05, (4, 256): 0.15}
# Two grown from the smallest, which has the shape of an encoder and parameters of its own.
TRANSLATORS = {(2, 64): 900_000, (6, 64): 1_600_000, (2, 128): 2_100_000}
TRANSLATOR_SECONDS_PER_STEP = {(2, 64): 0.03, (6, 64): 0.09, (2, 128): 0.07}
BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1"
CHRF_SIGNATURE = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.5.1"


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _loss(rank: int, step: float, large_wins: bool) -> float:
    """A power law with a floor: lower, and falling in fewer steps, for sizes that are to win."""
    floor, speed = (
        (3.0 - 0.6 * rank, 1.0 + 2.5 * rank)
        if large_wins
        else (2.0 + 0.4 * rank, 1.0 - 0.25 * rank)
    )
    return floor + 5.0 / (1.0 + (step * speed / 120.0) ** 0.9)


def _accuracy(rank: int, recipe: str, large_wins: bool, noise: float) -> float:
    sparsity, bits = RECIPES[recipe]
    hurt = 0.10 * sparsity**3 + (0.08 if bits == 4 else 0.002 if bits == 8 else 0.0)
    if large_wins:
        return 0.64 + 0.05 * rank - hurt / (1 + 2 * rank) + noise
    return 0.76 - 0.05 * rank - hurt * (1 + rank) + noise


def _pretrain(workdir: Path, shape: tuple[int, int], seed: int, large_wins: bool) -> float:
    job = workdir / f"jobs/pretrain-{shape[0]}x{shape[1]}-p{seed}"
    rank, rate = list(SIZES).index(shape), SECONDS_PER_STEP[shape]
    last = _train(
        job,
        shape,
        seed,
        f"{shape} {seed}",
        rate,
        lambda step: _loss(rank, step, large_wins),
        "toy:text",
    )
    result = {
        "params": SIZES[shape] + 5000,
        "tokens": last["step"] * 1024,
        "stopped_by": "budget",
        "mfu": None,
    }
    result |= {"steps": last["step"], "train_seconds": 60.0, "tokens_per_second": 1024 / rate}
    _write(job / "result.json", result | {"valid_loss": last["valid_loss"]})
    return last["valid_loss"]


def _train(job, shape, seed, dice, seconds_per_step, loss_at, data, measure=lambda loss: {}):  # type: ignore[no-untyped-def]
    """Config and metrics of a training job; returns its last evaluation."""
    rng = random.Random(dice)
    shift = rng.gauss(0, 0.01)
    rows = []
    for place in range(1, 25):
        seconds = 60.0 * place / 24
        step = int(seconds / seconds_per_step)
        loss = loss_at(step) + shift + rng.gauss(0, 0.004)
        common = {
            "step": step,
            "train_seconds": seconds,
            "total_seconds": seconds * 1.2,
            "tokens": step * 1024,
        }
        rows.append(
            {"event": "train", **common, "loss": loss + 0.05, "learning_rate": 1e-3, "mfu": None}
        )
        found = {"valid_loss": loss, "valid_perplexity": math.exp(loss), **measure(loss)}
        rows.append({"event": "eval", **common, **found})
    model = {"layers": shape[0], "hidden": shape[1], "max_length": 32}
    config = {
        "seed": seed,
        "data": {"train": data, "valid": ""},
        "model": model,
        "tokenizer": {"vocab_size": 2048},
    }
    _write(job / "config.json", config)
    (job / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows[-1]


def _translate(workdir: Path, shape: tuple[int, int], seed: int, large_wins: bool) -> None:
    job = workdir / f"jobs/translate-{shape[0]}x{shape[1]}-p{seed}"
    rank, rate = list(TRANSLATORS).index(shape), TRANSLATOR_SECONDS_PER_STEP[shape]

    def given_the_prefix(loss: float) -> dict[str, float]:
        return {"token_accuracy": math.exp(-loss / 4), "approx_bleu": math.exp(-loss / 3)}

    last = _train(
        job, shape, seed, f"translator {shape} {seed}", rate,
        lambda step: _loss(rank, step, large_wins), "toy:translation", given_the_prefix,
    )  # fmt: skip
    final = {
        name: last[name]
        for name in ("valid_loss", "valid_perplexity", "token_accuracy", "approx_bleu")
    }
    _write(job / "result.json", {
        "params": TRANSLATORS[shape], "steps": last["step"], "train_seconds": 60.0,
        "stopped_by": "budget", "vocab_size": 2048, "padding": {"source": 0.1, "target": 0.1},
        "sentences": 500, **final,
        "samples": [
            {"source": "A <cat>", "reference": f"Un chat {shape}",
             "translation": f"Chat de {shape}, {seed}"},
        ],
        **_translation_scores(_bleu(rank, "dense", large_wins, 0.001 * seed)),
    })  # fmt: skip


def _bleu(rank: int, recipe: str, large_wins: bool, noise: float) -> float:
    return 60 * (_accuracy(rank, recipe, large_wins, noise) - 0.35)


def _translation_scores(bleu: float) -> dict[str, object]:
    return {
        "bleu": bleu, "bleu_signature": BLEU_SIGNATURE, "bleu_tokenized": bleu + 0.7,
        "chrf": 20 + 1.5 * bleu, "chrf_signature": CHRF_SIGNATURE,
    }  # fmt: skip


def make_study(
    workdir: Path,
    *,
    large_wins: bool = True,
    seeds: int = 2,
    pretrain_seeds: int = 2,
    tasks: tuple[str, ...] = ("nli",),
    scratch: bool = True,
    kinds: tuple[str, ...] = ("encoder",),
) -> Path:
    """A study in which large models win everything or nothing."""
    rng = random.Random(0)
    rows = []
    for rank, (shape, params) in enumerate(SIZES.items() if "encoder" in kinds else ()):
        for pretrain_seed in range(pretrain_seeds):
            loss = _pretrain(workdir, shape, pretrain_seed, large_wins)
            for task, seed, recipe in itertools.product(tasks, range(seeds), RECIPES):
                twin = ("scratch",) if scratch and recipe == "dense" else ()
                for init in ("pretrained", *twin):
                    accuracy = _accuracy(rank, recipe, large_wins, rng.gauss(0, 0.004))
                    row = (shape, params, pretrain_seed, seed, task, init, recipe, accuracy, loss)
                    rows.append(_row(*row))
    for rank, (shape, params) in enumerate(TRANSLATORS.items() if "translator" in kinds else ()):
        for seed in range(pretrain_seeds):
            _translate(workdir, shape, seed, large_wins)
            for recipe in RECIPES:
                bleu = _bleu(rank, recipe, large_wins, rng.gauss(0, 0.004))
                row = _row(
                    shape, params, seed, seed, "translation", "pretrained", recipe, None, None
                )
                given = {"valid_loss": 2.0, "token_accuracy": 0.5, "approx_bleu": bleu / 90}
                row |= {
                    "kind": "translator",
                    "job": f"compress-{shape[0]}x{shape[1]}-p{seed}-translation-{recipe}",
                }
                rows.append(row | given | _translation_scores(bleu))
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _write(
        workdir / "study.json",
        [{"number": 0, "name": row["job"], "state": "done", "error": ""} for row in rows],
    )
    return workdir


def _row(shape, params, pretrain_seed, seed, task, init, recipe, accuracy, loss):  # type: ignore[no-untyped-def]
    sparsity, bits = RECIPES[recipe]
    name = f"{shape[0]}x{shape[1]}-p{pretrain_seed}-{task}-s{seed}"
    ideal = params * (1 - sparsity) * bits / 8 + (params / 8 if sparsity else 0)
    if accuracy is not None:
        accuracy -= 0.06 if init == "scratch" else 0.0
        by_split = {"matched": accuracy + 0.004, "mismatched": accuracy - 0.004}
    else:
        by_split = None
    return {
        "kind": "encoder", "layers": shape[0], "hidden": shape[1], "params": params,
        "params_nonembedding": params // 2, "seed": seed, "pretrain_seed": pretrain_seed,
        "budget_seconds": 60.0, "steps": 100, "train_seconds": 60.0, "pretrain_valid_loss": loss,
        "task": task, "init": init, "recipe": recipe, "sparsity": sparsity,
        "sparsity_all": sparsity * 0.95, "bits": bits, "nonzero": int(params * (1 - sparsity)),
        "bytes_ideal": ideal, "bytes_paper": ideal,
        "bytes_artifact": ideal * 1.03 + 2000 + 10 * seed + pretrain_seed,
        "bytes_checkpoint": ideal * 1.3, "accuracy": accuracy, "accuracy_by_split": by_split,
        "job": f"compress-{name}-{init}-{recipe}", "when": "after",
    }  # fmt: skip


def add_axes(workdir: Path, vary: dict[str, dict[str, dict]]) -> Path:  # type: ignore[type-arg]
    """Gives a made study the axes of study.vary; the later a value, the worse its models."""
    path = workdir / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    base = {axis: next(value for value, own in given.items() if not own)
            for axis, given in vary.items()}  # fmt: skip
    points = [({}, 0)] + [
        ({axis: value}, place)
        for axis, given in vary.items()
        for place, value in enumerate(given)
        if value not in ("stage", base[axis])
    ]
    jobs = [{"name": folder.name, "points": [""]} for folder in sorted(workdir.glob("jobs/*"))]
    lines = []
    for point, place in points:
        (text,) = [f"{axis}={value}" for axis, value in point.items()] or [""]
        stage = vary[next(iter(point))]["stage"] if point else ""
        kind = "translator" if stage == "translate" else "encoder" if point else ""
        for row in rows:
            if kind in ("", row["kind"]) and (not point or row["init"] != "scratch"):
                lines.append(row | _worse(row, place) | {"point": text})
                lines[-1] |= {f"vary.{axis}": value for axis, value in (base | point).items()}
                lines[-1]["job"] += text and f"-{text}"
                if stage == "checkpoint":
                    lines[-1]["steps"] = int(next(iter(point.values())))
        for folder in sorted(workdir.glob(f"jobs/{stage}-*")) if point else ():
            if "=" not in folder.name:
                job = workdir / f"jobs/{folder.name}-{text}"
                _write(job / "config.json", json.loads((folder / "config.json").read_text()))
                _write(job / "result.json", json.loads((folder / "result.json").read_text()))
                events = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
                worse = [event | _worse(event, place) for event in events]
                (job / "metrics.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in worse))
                jobs.append({"name": job.name, "points": [text]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _write(workdir / "study.json", {"jobs": [job | {"state": "done"} for job in jobs]})
    _write(workdir / "config.json", {"study": {"vary": vary}})
    return workdir


def _worse(row, place):  # type: ignore[no-untyped-def]
    by = {"accuracy": -0.02, "bleu": -1.0, "valid_loss": 0.15}
    hurt = {"accuracy": row.get("sparsity", 0) * -0.04 * place}
    return {name: row[name] + place * step + hurt.get(name, 0)
            for name, step in by.items() if row.get(name) is not None}  # fmt: skip
