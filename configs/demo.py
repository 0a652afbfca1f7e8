"""The whole system in minutes on two CPU cores and synthetic data: train large, then compress.

    make demo

or, in two commands:

    tlc study  --config=configs/demo.py --workdir=runs/demo
    tlc report --workdir=runs/demo

The text, the sentence pairs and the translations are generated (tlc_jax/synthetic), so the numbers
of this study say nothing about English.
Expected time: 12 minutes on two cores.
Expected result: docs/results/demo.md.
"""

from ml_collections import ConfigDict

from tlc_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.train = "toy:text:train"
    config.data.valid = "toy:text:valid"
    config.data.length = 64
    config.model.max_length = 64
    config.tokenizer.vocab_size = 2048
    config.tokenizer.train_bytes = 2_000_000
    # No dropout in less than one pass over the text. Fan-in initialization with sinusoidal
    # positions, small batches and a mask rate of a quarter leave the plateau of context-free
    # prediction within seconds.
    config.model.dropout = 0.0
    config.model.init = "fan_in"
    config.objective.mask_rate = 0.25
    config.optimizer.batch_size = 16
    config.optimizer.learning_rate = 3e-3
    config.optimizer.clip_norm = 1.0
    config.budget.seconds = 42.0
    config.eval.every_seconds = 4.0
    config.eval.examples = 256
    config.eval.batch_size = 64
    config.checkpoint.every_seconds = 20.0

    config.study.sizes = ("1x64", "2x64", "2x128")
    config.study.translators = ("1x64", "1x128")
    config.study.translator_recipes = ("dense", "quantize:8", "quantize:4")
    config.study.seeds = (0, 1, 2)
    config.study.recipes = (
        "dense",
        "quantize:8",
        "quantize:4",
        "prune:0.6",
        "prune:0.9",
        "prune:0.6+quantize:4",
    )
    config.study.analyses = ("quantize:4",)
    # Fewer and shorter rounds than the paper's 15 % and an epoch: a recipe takes seconds.
    config.compress.step = 0.3
    config.compress.recover_epochs = 0.1
    config.compress.recover_evals = 4
    config.study.finetune = ConfigDict(
        {
            "budget": {"epochs": 1.75},
            "optimizer": {"batch_size": 32, "learning_rate": 5e-4, "warmup": 0.1, "clip_norm": 1.0},
            "eval": {"batch_size": 128},
        }
    )
    # Two small translators into the synthetic world's second language, in half the time.
    config.study.translation = ConfigDict(
        {
            "data": {
                "train": "toy:translation:train",
                "valid": "toy:translation:valid",
                "length": 32,
                "buckets": 1,
            },
            "objective": {"label_smoothing": 0.1},
            "optimizer": {"batch_size": 512},
            "budget": {"seconds": 22.0},
            "eval": {"every_seconds": 1.0, "batch_size": 2048},
            "decode": {"batch_size": 128, "extra": 10},
        }
    )
    config.study.tasks = ConfigDict(
        {"toy": {"data": {"train": "toy:nli:train", "valid": "toy:nli:valid"}}}
    )
    return config
