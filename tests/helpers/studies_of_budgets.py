"""Invented studies on disk of several sizes and budgets, whose losses follow a known law."""

from __future__ import annotations

import json

import numpy as np

from tlc_jax.statistics.scaling_law import Runs

# Layers, hidden, parameters without embeddings; the embeddings are 4096 tokens wide.
SIZES = ((1, 64), (2, 128), (4, 256), (6, 384))
FLOOR, FIRST, ALPHA, SECOND, BETA = 1.8, 0.8, 0.35, 1.0, 0.3
NOISE = 0.004  # deviation of the log loss of a run


def params_of(layers, hidden):
    """Parameters without embeddings, and all."""
    inner = 12 * layers * hidden**2
    return inner, inner + 4096 * hidden


def speed_of(params):
    """Tokens a second: small models use a device less well."""
    return 2e10 / params**0.85


def loss_of(params, tokens):
    return FLOOR + FIRST * (params / 1e6) ** -ALPHA + SECOND * (tokens / 1e8) ** -BETA


def made_runs(rng, sizes=SIZES, budgets=(100, 200, 400), seeds=2, noise=NOISE, loss=loss_of):
    """Runs and their training seconds."""
    params = [params_of(*size)[0] for size in sizes for _ in budgets for _ in range(seeds)]
    params_N = np.array(params, float)
    seconds_N = np.array([s for _ in sizes for s in budgets for _ in range(seeds)], float)
    tokens_N = speed_of(params_N) * seconds_N
    losses_N = loss(params_N, tokens_N) * np.exp(rng.normal(0, noise, len(params_N)))
    return Runs(params_N, tokens_N, losses_N), seconds_N


def write_study(folder, sizes=SIZES, budgets=(100, 200, 400), seeds=2, recipe="quantize:4"):
    """A study of pretraining runs, with dense and compressed models of each."""
    rng, rows = np.random.default_rng(0), []
    for layers, hidden in sizes:
        for seconds in budgets:
            for seed in range(seeds):
                inner, total = params_of(layers, hidden)
                tokens = speed_of(inner) * seconds
                name = f"pretrain-{layers}x{hidden}-b{seconds}-p{seed}"
                loss = float(loss_of(inner, tokens) * np.exp(rng.normal(0, NOISE)))
                result = {
                    "params": total, "params_nonembedding": inner, "tokens": tokens,
                    "steps": int(tokens / 1024), "train_seconds": float(seconds),
                    "valid_loss": loss,
                }  # fmt: skip
                config = {"seed": seed, "model": {"layers": layers, "hidden": hidden}}
                write_run(folder, name, result, config)
                lost = 0.03 * (inner / 1e6) ** -0.5 + rng.normal(0, 0.001)
                for one, accuracy, each in (("dense", 0.8, 4.0), (recipe, 0.8 - lost, 0.5)):
                    rows.append({
                        "job": f"compress-{name}-{one}", "kind": "encoder", "task": "nli",
                        "layers": layers, "hidden": hidden, "params": total, "recipe": one,
                        "pretrain_seed": seed, "seed": 0, "init": "pretrained",
                        "steps": result["steps"], "train_seconds": float(seconds),
                        "bytes_artifact": each * total, "bits": 8 * each,
                        "nonzero": total, "accuracy": accuracy,
                    })  # fmt: skip
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text("{}")
    return folder


def write_run(folder, name, result, config):
    job = folder / "jobs" / name
    job.mkdir(parents=True)
    (job / "result.json").write_text(json.dumps(result))
    (job / "config.json").write_text(json.dumps(config))
