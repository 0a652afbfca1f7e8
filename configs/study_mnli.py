"""The paper's study: nine sizes, one budget each, finetuned on MNLI and SST-2, compressed in every way.

    tlc study  --config=configs/study_mnli.py --workdir=runs/study-mnli --list
    tlc study  --config=configs/study_mnli.py --workdir=runs/study-mnli
    tlc report --workdir=runs/study-mnli

As an array job: --job=K runs job K. The argument chooses part of the grid: all (default), depths or widths.
Expected: the tables of the paper, such as 24x768 pruned by 75 % (0.846 on MNLI) at or above dense 12x768 (0.8435).
Not run here yet: 9 x 1,000,000 seconds of pretraining need accelerators for days. Smaller budgets, for example
--config.budget.seconds=36000, keep everything else.
"""

from ml_collections import ConfigDict
from mlm import DEPTHS, GRID, WIDTHS
from mlm import get_config as pretraining
from mnli import get_config as mnli
from sst2 import get_config as sst2

from tlc_jax.core.errors import InputError

SIZES = {"all": GRID, "depths": DEPTHS, "widths": WIDTHS}
SPARSITIES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
BITS = (8, 6, 4)

# The paper quantises uniformly between minimum and maximum and does not say over what: one range per tensor is its
# plain reading. Embeddings are compressed too. 4 bits per channel with AQT is added because a range per tensor may be
# far worse than the paper's own numbers.
QUANTISE = "quantize:{bits},scheme=minmax,per=tensor"
RECIPES = (
    "dense",
    *(f"prune:{sparsity}" for sparsity in SPARSITIES),
    *(QUANTISE.format(bits=bits) for bits in BITS),
    "quantize:4,per=channel",
    *(f"prune:{sparsity}+{QUANTISE.format(bits=bits)}" for sparsity in SPARSITIES for bits in BITS),
    *(f"prune:{sparsity}+quantize:4,per=channel" for sparsity in SPARSITIES),
)


def get_config(part: str = "all") -> ConfigDict:
    if part not in SIZES:
        raise InputError(
            f"configs/study_mnli.py:{part}: the part must be one of {', '.join(SIZES)}"
        )
    config = pretraining()
    config.study.sizes = SIZES[part]
    config.study.recipes = RECIPES
    config.study.finetune = _finetuning(mnli())
    config.study.tasks = {"mnli": _task(mnli()), "sst2": _task(sst2())}
    # The paper states no number of seeds. Three finetuning seeds give an error bar; one pretraining run per size is
    # what is affordable.
    config.study.seeds = (0, 1, 2)
    config.study.analyses = (QUANTISE.format(bits=4), "prune:0.6")  # the paper's figure 9
    config.checkpoint.keep_every_steps = 250_000  # and, without finetuning, its figure 8
    config.study.megabytes = (25.0, 50.0, 100.0, 200.0, 400.0)

    # One setting for all sizes: 64 rows at a time let 12x1536 keep its activations on a 16 GB device.
    config.impl.microbatch = 64
    config.impl.remat = False

    # The paper: 15 % more zeros at a time, then train until within 99.5 % of the original accuracy or for one epoch.
    config.compress.when = "after"
    config.compress.step = 0.15
    config.compress.recover = 0.995
    config.compress.recover_epochs = 1.0
    return config


def _finetuning(task: ConfigDict) -> dict:
    """What finetuning does otherwise than pretraining, whatever the task."""
    settings = task.to_dict()
    return {
        "optimizer": settings["optimizer"],
        "budget": settings["budget"],
        "impl": {"microbatch": 0},  # batches of 32 fit whole
    }


def _task(task: ConfigDict) -> dict:
    """What is a task's own."""
    names = ("train", "valid", "text", "pair", "label", "length")
    return {"data": {name: task.data[name] for name in names}, "eval": task.eval.to_dict()}
