"""The demo's study on your own text and labels, for a laptop.

    tlc study  --config=configs/study_files.py:DIR --workdir=runs/files
    tlc report --workdir=runs/files

DIR holds english/{train,valid}.txt.gz (a paragraph a line, an empty line between documents) and,
for each task, {train,dev}.tsv with a header: sentiment/ (label, sentence) and nli/ (label, premise,
hypothesis).
Expected time: about an hour and a half on two cores.
Expected result: docs/results/study_files.md.
"""

from ml_collections import ConfigDict

from configs.common import labelled_files, recover_briefly
from tlc_jax.config import default_config


def get_config(folder: str = "data") -> ConfigDict:
    config = default_config()
    config.data.train = f"files:{folder}/english/train.txt.gz"
    config.data.valid = f"files:{folder}/english/valid.txt.gz"
    config.data.length = 64
    config.model.max_length = 64
    config.tokenizer.vocab_size = 4096
    config.tokenizer.train_bytes = 8_000_000

    # Minutes of compute instead of GPU-weeks. A model leaves the plateau of context-free prediction
    # soonest with many small steps, short rows, a small vocabulary, fan-in initialization with
    # sinusoidal positions, and no dropout in less than one pass over the text.
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
    recover_briefly(config, evaluations=4)  # each recipe takes seconds
    config.study.finetune = ConfigDict(
        {
            "budget": {"epochs": 2.0},
            "model": {"dropout": 0.1},
            "optimizer": {"batch_size": 32, "learning_rate": 1e-3, "warmup": 0.1, "clip_norm": 1.0},
            "eval": {"batch_size": 128},
        }
    )
    config.study.tasks = ConfigDict(
        {task: {"data": labelled_files(folder, task)} for task in ("sentiment", "nli")}
    )
    # Rough labels, made by a rule: they test the pipeline only.
    config.study.tasks.nli.data.subsample = 0.25
    return config
