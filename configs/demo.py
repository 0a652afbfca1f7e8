"""The whole system in minutes on two CPU cores, on a synthetic world: train large, then compress, in small.

    make demo

or, in two commands:

    tlc study  --config=configs/demo.py --workdir=runs/demo
    tlc report --workdir=runs/demo

The text and the sentence pairs are generated (tlc_jax/data/toy); no figure of this study says anything about English.
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
    config.model.dropout = 0.0
    config.model.init = "fan_in"
    config.objective.mask_rate = 0.2
    config.optimizer.batch_size = 32
    config.optimizer.learning_rate = 3e-3
    config.budget.seconds = 60.0
    config.eval.every_seconds = 6.0
    config.eval.examples = 512
    config.eval.batch_size = 64
    config.checkpoint.every_seconds = 30.0
    config.impl.matmul = "mix"
    config.impl.layer_loop = "unrolled"

    config.study.sizes = ("2x64", "3x128", "4x256")
    config.study.seeds = (0,)
    config.study.recipes = (
        "dense",
        "quantize:8",
        "quantize:4",
        "prune:0.6",
        "prune:0.9",
        "prune:0.6+quantize:4",
    )
    config.study.scratch = True
    config.study.finetune = ConfigDict(
        {
            "budget": {"epochs": 3.0},
            "optimizer": {"batch_size": 32, "learning_rate": 1e-3, "warmup": 0.1},
            "eval": {"batch_size": 128},
        }
    )
    config.study.tasks = ConfigDict({"toy": {"data": {"train": "toy:nli:train", "valid": "toy:nli:valid"}}})
    return config
