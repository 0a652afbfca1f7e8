"""Titles of the figures and what the page says under them, by kind of model."""

from __future__ import annotations

import dataclasses

from tlc_jax.statistics.curves import APPROX_BLEU, LOSS, Quantity
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind


@dataclasses.dataclass(frozen=True)
class CurvesCaption:
    """A figure of training curves."""

    name: str  # of its file
    of: Quantity
    axis: str  # seconds or steps
    title: str
    text: str


_SECONDS = (
    "against training seconds (compilation, evaluation and checkpoints are not charged). The learning rate runs on the "
    "share of the budget used, so every curve decays inside its own budget. Lines are means over"
)
_BANDS = "seeds, bands one sample standard deviation. Source: curves.csv."
_STEPS = "The same runs against optimizer steps; at equal steps every size has seen the same"

CURVES: dict[Kind, tuple[CurvesCaption, ...]] = {
    ENCODER: (
        CurvesCaption(
            "loss_seconds", LOSS, "seconds", "Loss against training seconds",
            f"Validation loss of masked-language training {_SECONDS} pretraining {_BANDS}",
        ),
        CurvesCaption("loss_steps", LOSS, "steps", "Loss against steps", f"{_STEPS} text."),
    ),
    TRANSLATOR: (
        CurvesCaption(
            "translation_loss_seconds", LOSS, "seconds", "Translation: loss against training seconds",
            f"Validation loss of translation, without label smoothing, {_SECONDS} {_BANDS}",
        ),
        CurvesCaption(
            "translation_loss_steps", LOSS, "steps", "Translation: loss against steps", f"{_STEPS} sentence pairs."
        ),
        CurvesCaption(
            "translation_approx_bleu_seconds", APPROX_BLEU, "seconds",
            "Translation: approx_bleu against training seconds",
            "tensor2tensor's approx_bleu of the same runs: BLEU, from 0 to 1, of the likeliest subwords given the true "
            "translation so far. It is not the BLEU of translations; figure 5 of the paper most likely shows it. "
            "Source: curves.csv.",
        ),
        CurvesCaption(
            "translation_approx_bleu_steps", APPROX_BLEU, "steps", "Translation: approx_bleu against steps",
            "The same against optimizer steps.",
        ),
    ),
}  # fmt: skip

_AGAINST_SIZE = "against the size of the packed artifact. Error bars are one sample standard deviation over seeds"
_FRONTIER = "The stepped line joins the Pareto frontier: no other model is as small and as"
MEGABYTES: dict[Kind, str] = {
    ENCODER: f"Accuracy on the validation split {_AGAINST_SIZE}, of pretraining and finetuning together; hollow "
    f"markers were never pretrained. {_FRONTIER} accurate as a ringed one. Source: models.csv.",
    TRANSLATOR: "BLEU (sacreBLEU) of the validation split, every sentence translated with beam search, "
    f"{_AGAINST_SIZE}. {_FRONTIER} good as a ringed one. Source: models.csv.",
}
NONZERO = "The same models against the number of parameters that are not zero; quantization does not move a point."
SCRATCH = (
    "Dense models finetuned from the pretrained encoder and, for the same size, from random weights. Error bars are "
    "one sample standard deviation over seeds."
)


def lost(kind: Kind) -> str:
    """Under the figure of scores lost to compression."""
    return (
        f"{kind.score[:1].upper()}{kind.score[1:]} of each seed's dense model minus that of its compressed one, mean "
        f"and sample standard deviation over seeds, in {kind.points}: lower is better, below zero compression helped."
    )


ANALYSES: dict[str, tuple[str, str]] = {
    "error_modules": (
        "Compression error by module",
        "L2 norm of the difference of each output row of all matrices of a kind (the paper's figure 9, whose statistic "
        "it does not define).",
    ),
    "error_depth": ("Compression error by depth", "The median of these norms in each layer."),
    "sensitivity": (
        "Sensitivity of each matrix",
        "What it costs to compress that matrix alone; red costs, blue gains. A pruning threshold is its own here.",
    ),
    "convergence": (
        "Compressibility along training",
        "The model at the checkpoints that its run kept, dense and compressed at once, without finetuning (the paper's "
        "figure 8 finetunes).",
    ),
}
"""Title and text of each figure of `tlc analyze`, by the name of its file."""
