"""A study in a minute: magnitude and LAMP, on a tiny encoder and a made-up world.

    tlc study --config=study.py --workdir=runs/lamp
    tlc report --workdir=runs/lamp

Expected: four rows in runs/lamp/results.jsonl. Their numbers mean nothing: the model hardly learns.
"""

from ml_collections import ConfigDict

from tlc_jax.configs import tiny


def get_config() -> ConfigDict:
    config = tiny.get_config()
    config.data.cache = ""
    config.impl.trackers = ("csv",)
    config.study.sizes = ("1x64",)
    config.study.recipes = (
        "dense",
        "prune:0.9",
        "prune:0.9,score=lamp",
        "prune:0.9,score=lamp+quantize:4",
    )
    with config.study.unlocked():
        config.study.finetune = {
            "budget": {"steps": 10},
            "optimizer": {"batch_size": 32},
            "model": {"max_length": 64},
            "compress": {"recover": 0.0},
        }
        data = {"train": "toy:nli:valid", "valid": "toy:nli:valid", "length": 32}
        config.study.tasks = {"nli": {"data": data}}
    return config
