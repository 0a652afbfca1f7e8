"""Finetuning on SST-2 from a pretrained encoder.

    tlc finetune --config=configs/sst2.py:12x768 --workdir=runs/sst2 --config.init.from=runs/mlm

The argument is the encoder's LAYERSxHIDDEN. Several seeds: --config.seeds="(0, 1, 2)".
Expected time: ten epochs of 67,000 sentences; not run here yet, because it needs an accelerator.
Expected result: a dense RoBERTa of base size, fully pretrained, is known for about 0.93.
"""

from ml_collections import ConfigDict

from configs.common import finetune_as_roberta, sized


def get_config(size: str = "12x768") -> ConfigDict:
    config = sized(size)
    config.data.train = "tfds:glue/sst2:train"
    config.data.valid = "tfds:glue/sst2:validation"
    # No data.test: the labels of the test split are not public.
    config.data.text, config.data.pair, config.data.label = "sentence", "-", "label"
    finetune_as_roberta(config)
    config.eval.every_steps = 1000  # 67,000 examples: 2,100 steps an epoch
    return config
