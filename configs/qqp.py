"""Finetuning on QQP (do two questions ask the same?) from a pretrained encoder.

    tlc finetune --config=configs/qqp.py:12x768 --workdir=runs/qqp --config.init.from=runs/mlm

The argument is the encoder's LAYERSxHIDDEN. Several seeds: --config.seeds="(0, 1, 2)".
Expected time: ten epochs of 364,000 pairs; not run here yet, because it needs an accelerator.
Expected result: a dense RoBERTa of base size, fully pretrained, is known for about 0.91. The paper
did not use this task; the settings are those of its other two.
"""

from ml_collections import ConfigDict

from configs.common import finetune_as_roberta, sized


def get_config(size: str = "12x768") -> ConfigDict:
    config = sized(size)
    config.data.train = "tfds:glue/qqp:train"
    config.data.valid = "tfds:glue/qqp:validation"
    # No data.test: the labels of the test split are not public.
    config.data.text, config.data.pair, config.data.label = "question1", "question2", "label"
    finetune_as_roberta(config)
    return config
