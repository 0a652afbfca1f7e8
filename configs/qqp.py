"""Finetuning on QQP (are two questions duplicates?) from a pretrained encoder.

    tlc finetune --config=configs/qqp.py:12x768 --workdir=runs/qqp-12x768 --config.init.from=runs/mlm-12x768

The argument is the encoder's LAYERSxHIDDEN. Several seeds: --config.seeds="(0, 1, 2)".
Expected: a dense RoBERTa of base size, fully pretrained, is known for about 0.91.
Not run here yet: it needs an accelerator. The paper did not use this task; the recipe is that of its other two.
"""

from ml_collections import ConfigDict
from mnli import set_recipe

from tlc_jax.config import default_config, parse_size


def get_config(size: str = "12x768") -> ConfigDict:
    config = default_config()
    config.model.layers, config.model.hidden = parse_size(size)
    config.data.train = "tfds:glue/qqp:train"
    config.data.valid = "tfds:glue/qqp:validation"
    config.data.text, config.data.pair, config.data.label = "question1", "question2", "label"
    config.data.length = 128
    set_recipe(config)
    return config
