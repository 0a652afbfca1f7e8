"""Finetuning on SST-2 from a pretrained encoder.

    tlc finetune --config=configs/sst2.py:12x768 --workdir=runs/sst2-12x768 --config.init.from=runs/mlm-12x768

The argument is the encoder's LAYERSxHIDDEN. Several seeds: --config.seeds="(0, 1, 2)".
Expected: a dense RoBERTa of base size, fully pretrained, is known for about 0.93.
Not run here yet: it needs an accelerator.
"""

from ml_collections import ConfigDict
from mnli import set_recipe

from tlc_jax.config import default_config, parse_size


def get_config(size: str = "12x768") -> ConfigDict:
    config = default_config()
    config.model.layers, config.model.hidden = parse_size(size)
    config.data.train = "tfds:glue/sst2:train"
    config.data.valid = "tfds:glue/sst2:validation"
    config.data.text, config.data.pair, config.data.label = "sentence", "-", "label"
    config.data.length = 128
    set_recipe(config)
    config.eval.every_steps = 1000  # 67,000 examples: 2,100 steps an epoch
    return config
