"""Small made-up studies on disk, in the files that a real study leaves."""

import json
import math
import random
from pathlib import Path

import pytest

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


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _loss(shape: tuple[int, int], step: float, large_wins: bool) -> float:
    """A power law with a floor; where large models are to win, theirs is lower and reached in fewer steps."""
    rank = list(SIZES).index(shape)
    floor, speed = (3.0 - 0.6 * rank, 1.0 + 2.5 * rank) if large_wins else (2.0 + 0.4 * rank, 1.0 - 0.25 * rank)
    return floor + 5.0 / (1.0 + (step * speed / 120.0) ** 0.9)


def _accuracy(shape: tuple[int, int], recipe: str, large_wins: bool, noise: float) -> float:
    rank = list(SIZES).index(shape)
    sparsity, bits = RECIPES[recipe]
    hurt = 0.10 * sparsity**3 + (0.08 if bits == 4 else 0.002 if bits == 8 else 0.0)
    if large_wins:
        return 0.64 + 0.05 * rank - hurt / (1 + 2 * rank) + noise
    return 0.76 - 0.05 * rank - hurt * (1 + rank) + noise


def _pretrain(workdir: Path, shape: tuple[int, int], seed: int, large_wins: bool) -> float:
    layers, hidden = shape
    job = workdir / f"jobs/pretrain-{layers}x{hidden}-p{seed}"
    rng = random.Random(f"{shape} {seed}")
    shift = rng.gauss(0, 0.01)
    rows = []
    for place in range(1, 25):
        seconds = 60.0 * place / 24
        step = int(seconds / SECONDS_PER_STEP[shape])
        loss = _loss(shape, step, large_wins) + shift + rng.gauss(0, 0.004)
        common = {"step": step, "train_seconds": seconds, "total_seconds": seconds * 1.2, "tokens": step * 1024}
        rows.append({"event": "train", **common, "loss": loss + 0.05, "learning_rate": 1e-3, "mfu": None})
        rows.append({"event": "eval", **common, "valid_loss": loss, "valid_perplexity": math.exp(loss)})
    data = {"train": "toy:text", "valid": ""}
    model = {"layers": layers, "hidden": hidden, "max_length": 32}
    _write(job / "config.json", {"seed": seed, "data": data, "model": model, "tokenizer": {"vocab_size": 2048}})
    (job / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = {"params": SIZES[shape] + 5000, "steps": step, "tokens": step * 1024, "stopped_by": "budget", "mfu": None}
    result["train_seconds"] = 60.0
    _write(job / "result.json", result | {"tokens_per_second": 1024 / SECONDS_PER_STEP[shape], "valid_loss": loss})
    return loss


def make_study(
    workdir: Path, *, large_wins: bool = True, seeds: int = 2, tasks: tuple[str, ...] = ("nli",), scratch: bool = True
) -> Path:
    """A study with two pretraining runs a size, in which large models win everything or nothing."""
    rng = random.Random(0)
    rows = []
    for shape, params in SIZES.items():
        for pretrain_seed in range(2):
            loss = _pretrain(workdir, shape, pretrain_seed, large_wins)
            for task in tasks:
                for seed in range(seeds):
                    for recipe in RECIPES:
                        for init in ("pretrained", "scratch") if scratch and recipe == "dense" else ("pretrained",):
                            accuracy = _accuracy(shape, recipe, large_wins, rng.gauss(0, 0.004))
                            rows.append(_row(shape, params, pretrain_seed, seed, task, init, recipe, accuracy, loss))
    (workdir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _write(workdir / "study.json", [{"number": 0, "name": row["job"], "state": "done", "error": ""} for row in rows])
    return workdir


def _row(shape, params, pretrain_seed, seed, task, init, recipe, accuracy, loss):  # type: ignore[no-untyped-def]
    sparsity, bits = RECIPES[recipe]
    name = f"{shape[0]}x{shape[1]}-p{pretrain_seed}-{task}-s{seed}"
    ideal = params * (1 - sparsity) * bits / 8 + (params / 8 if sparsity else 0)
    accuracy -= 0.06 if init == "scratch" else 0.0
    return {
        "layers": shape[0], "hidden": shape[1], "params": params, "params_nonembedding": params // 2,
        "seed": seed, "pretrain_seed": pretrain_seed, "budget_seconds": 60.0, "steps": 100, "train_seconds": 60.0,
        "pretrain_valid_loss": loss, "task": task, "init": init, "recipe": recipe, "sparsity": sparsity,
        "sparsity_all": sparsity * 0.95, "bits": bits, "nonzero": int(params * (1 - sparsity)),
        "bytes_ideal": ideal, "bytes_paper": ideal, "bytes_artifact": ideal * 1.03 + 2000 + 10 * seed + pretrain_seed,
        "bytes_checkpoint": ideal * 1.3, "accuracy": accuracy,
        "accuracy_by_split": {"matched": accuracy + 0.004, "mismatched": accuracy - 0.004},
        "job": f"compress-{name}-{init}-{recipe}", "when": "after",
    }  # fmt: skip


@pytest.fixture
def study_maker():
    return make_study
