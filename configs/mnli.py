"""Finetuning on MNLI from a pretrained encoder: validation on matched pairs, test on the others.

    tlc finetune --config=configs/mnli.py:12x768 --workdir=runs/mnli --config.init.from=runs/mlm

The argument is the encoder's LAYERSxHIDDEN. Several seeds: --config.seeds="(0, 1, 2)".
Expected time: ten epochs of 393,000 pairs; not run here yet, because it needs an accelerator.
Expected result: the paper's figures show 0.8435 for 12x768 and 0.8545 for 24x768 (validation
accuracy, pretrained for 1,000,000 seconds on one V100).
"""

from ml_collections import ConfigDict

from configs.common import finetune_as_roberta, sized

MATCHED = "matched=tfds:glue/mnli:validation_matched"
MISMATCHED = "mismatched=tfds:glue/mnli:validation_mismatched"


def get_config(size: str = "12x768") -> ConfigDict:
    config = sized(size)
    config.data.train = "tfds:glue/mnli:train"
    # The paper reports validation accuracy. The labels of GLUE's own test splits are not public, so
    # the mismatched validation split is read once, at the end.
    config.data.valid, config.data.test = MATCHED, MISMATCHED
    config.data.text, config.data.pair, config.data.label = "premise", "hypothesis", "label"
    finetune_as_roberta(config)
    return config
