"""The demo's study on real text and labels of your own, for a laptop: pretrain, finetune, compress, report.

    tlc study  --config=configs/study_files.py:DIR --workdir=runs/files
    tlc report --workdir=runs/files

DIR holds english/{train,valid}.txt.gz (a paragraph a line, an empty line between documents) and, for each task, a
{train,dev}.tsv with a header: sentiment/ (label, sentence) and nli/ (label, premise, hypothesis).
Time on two cores: about an hour and a half. What it showed is in the README.
"""

from ml_collections import ConfigDict

from tlc_jax.config import default_config


def get_config(folder: str = "data") -> ConfigDict:
    config = default_config()
    config.data.train = f"files:{folder}/english/train.txt.gz"
    config.data.valid = f"files:{folder}/english/valid.txt.gz"
    config.data.length = 64
    config.model.max_length = 64
    config.tokenizer.vocab_size = 4096
    config.tokenizer.train_bytes = 8_000_000

    # Minutes of compute instead of GPU-weeks: what leaves the plateau of context-free prediction soonest is many small
    # steps, short rows, a small vocabulary, fan-in initialisation with sinusoidal positions, and no dropout in what is
    # less than one pass over the text.
    config.model.dropout = 0.0
    config.model.init = "fan_in"
    config.objective.mask_rate = 0.2
    config.optimizer.batch_size = 16
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.05
    config.optimizer.clip_norm = 1.0
    config.budget.seconds = 600.0
    config.budget.clock = "benchmark"  # results do not depend on what else a laptop is doing
    config.eval.every_seconds = 30.0
    config.eval.examples = 640
    config.eval.batch_size = 64
    config.impl.matmul = "mix"
    config.impl.layer_loop = "unrolled"
    config.impl.compilation_cache = "runs/compilation-cache"

    config.study.sizes = ("2x64", "3x128", "4x192")
    config.study.seeds = (0, 1, 2)
    config.study.recipes = (
        "dense",
        "quantize:8",
        "quantize:4",
        "prune:0.6",
        "prune:0.6+quantize:4",
        "prune:0.9",
    )
    config.study.analyses = ("quantize:4", "prune:0.6")
    config.study.scratch = ("3x128", "4x192")
    # Fewer and shorter rounds of pruning than in the paper (15 %, an epoch): each recipe is to take seconds here.
    config.compress.step = 0.3
    config.compress.recover_epochs = 0.25
    config.compress.recover_evals = 4
    config.study.finetune = ConfigDict(
        {
            "budget": {"epochs": 2.0},
            "model": {"dropout": 0.1},
            "optimizer": {"batch_size": 32, "learning_rate": 1e-3, "warmup": 0.1, "clip_norm": 1.0},
            "eval": {"batch_size": 128},
        }
    )
    config.study.tasks = ConfigDict(
        {"sentiment": _task(folder, "sentiment"), "nli": _task(folder, "nli")}
    )
    config.study.tasks.nli.data.subsample = 0.25  # rough labels, made by rule: for the plumbing
    return config


def _task(folder: str, name: str) -> dict:
    return {
        "data": {
            "train": f"files:{folder}/{name}/train.tsv",
            "valid": f"files:{folder}/{name}/dev.tsv",
        }
    }
