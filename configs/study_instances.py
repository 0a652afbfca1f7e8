"""Are larger models better on every instance? Three sizes, each with 4 x 4 seeds.

    tlc study   --config=configs/study_instances.py:DIR --workdir=runs/instances
    tlc report  --workdir=runs/instances
    tlc compare --workdir=runs/instances

DIR holds english/{train,valid}.txt.gz (a paragraph a line, an empty line between documents) and
sentiment/{train,dev}.tsv with a header (label, sentence).
Four encoders of each size are pretrained, and each is finetuned four times.
Expected time: three quarters of an hour on two cores.
Expected result: docs/results/study_instances.md.
"""

from ml_collections import ConfigDict

from configs import study_files
from configs.common import labelled_files


def get_config(folder: str = "data") -> ConfigDict:
    config = study_files.get_config(folder)
    # As in the paper, all sizes take the same number of steps, so nothing depends on the machine.
    # These sizes leave the plateau of context-free prediction in a few thousand steps.
    config.budget.seconds = 0.0
    config.budget.clock = "measured"
    config.budget.steps = 6_000
    config.eval.every_seconds = 0.0
    config.eval.every_steps = 1_000
    config.study.sizes = ("1x64", "2x64", "2x128")
    config.study.pretrain_seeds = (0, 1, 2, 3)
    config.study.seeds = (0, 1, 2, 3)
    config.study.recipes = ("dense", "quantize:4", "prune:0.75")
    config.study.analyses = ()
    config.study.scratch = ()
    config.study.tasks = ConfigDict({"sentiment": {"data": labelled_files(folder, "sentiment")}})
    # Half of the sentences are longer and are cut, which costs accuracy and halves the time.
    config.study.finetune.data = ConfigDict({"length": 32})
    config.study.finetune.budget.epochs = 1.5
    return config
