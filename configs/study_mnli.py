"""The paper's study: nine sizes, one budget each, two tasks, every compression.

    tlc study  --config=configs/study_mnli.py --workdir=runs/study-mnli --list
    tlc study  --config=configs/study_mnli.py --workdir=runs/study-mnli
    tlc report --workdir=runs/study-mnli

As an array job: --job=K runs job K. The argument chooses part of the grid: all (default), depths or
widths.
Expected time: 9 x 1,000,000 seconds of pretraining; not run here yet, because it needs accelerators
for days. Smaller budgets, for example --config.budget.seconds=36000, keep everything else.
Expected result: the tables of the paper, such as 24x768 pruned by 75 % (0.846 on MNLI) at or above
dense 12x768 (0.8435).
"""

from ml_collections import ConfigDict

from configs import mlm, mnli, sst2
from tlc_jax.core.errors import InputError

SIZES = {"all": mlm.GRID, "depths": mlm.DEPTHS, "widths": mlm.WIDTHS}
SPARSITIES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
BITS = (8, 6, 4)

# The paper quantizes uniformly between minimum and maximum and does not say over what: one range
# per tensor is its plain reading. Embeddings are compressed too. 4 bits per channel with AQT are
# added, because one range per tensor may be far worse than the paper's own numbers.
QUANTIZE = "quantize:{bits},scheme=minmax,per=tensor"
RECIPES = (
    "dense",
    *(f"prune:{sparsity}" for sparsity in SPARSITIES),
    *(QUANTIZE.format(bits=bits) for bits in BITS),
    "quantize:4,per=channel",
    *(f"prune:{sparsity}+{QUANTIZE.format(bits=bits)}" for sparsity in SPARSITIES for bits in BITS),
    *(f"prune:{sparsity}+quantize:4,per=channel" for sparsity in SPARSITIES),
)


def get_config(part: str = "all") -> ConfigDict:
    if part not in SIZES:
        raise InputError(
            f"configs/study_mnli.py:{part}: the part must be one of {', '.join(SIZES)}"
        )
    config = mlm.get_config()
    config.study.sizes = SIZES[part]
    config.study.recipes = RECIPES
    config.study.finetune = _finetuning(mnli.get_config())
    config.study.tasks = {"mnli": _task(mnli.get_config()), "sst2": _task(sst2.get_config())}
    # The paper states no number of seeds. Three finetuning seeds give an error bar; more than one
    # pretraining run per size is not affordable, so what the report says of sizes is a suggestion.
    config.study.seeds = (0, 1, 2)
    config.study.analyses = (QUANTIZE.format(bits=4), "prune:0.6")  # the paper's figure 9
    config.checkpoint.keep_every_steps = 250_000  # and, without finetuning, its figure 8
    config.study.megabytes = (25.0, 50.0, 100.0, 200.0, 400.0)

    # The paper: the largest that fits, so small models need fewer steps of accumulation.
    config.impl.microbatch = "auto"

    # The paper: 15 % more zeros at a time, then train until the accuracy is within 99.5 % of the
    # original or for one epoch.
    config.compress.when = "after"
    config.compress.step = 0.15
    config.compress.recover = 0.995
    config.compress.recover_epochs = 1.0
    return config


def _finetuning(task: ConfigDict) -> dict:
    """The settings of finetuning that differ from pretraining, for any task."""
    settings = task.to_dict()
    return {
        "optimizer": settings["optimizer"],
        "budget": settings["budget"],
        "impl": {"microbatch": 0},  # batches of 32 fit whole
    }


def _task(task: ConfigDict) -> dict:
    """The settings that differ between tasks."""
    names = ("train", "valid", "test", "text", "pair", "label", "length")
    return {"data": {name: task.data[name] for name in names}, "eval": task.eval.to_dict()}
