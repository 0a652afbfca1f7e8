"""The claims of "Train Large, Then Compress" (Li et al., 2020), each put to the numbers of one study.

A claim is tested by a criterion that was fixed before the numbers were seen; `spread.rule` says what counts as clear.
What a study has no data for is "not tested", and says what would be needed. Claims about a kind of model of which the
study has none are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from tlc_jax.statistics import claims_models, claims_training
from tlc_jax.statistics.kinds import ENCODER, Kind
from tlc_jax.statistics.records import Study
from tlc_jax.statistics.regime import Regime
from tlc_jax.statistics.verdicts import UNTESTED, Claim


def evaluate(study: Study, regimes: Mapping[Kind, Regime]) -> list[Claim]:
    """All claims in the paper's order, those about translation (-mt) each beside its like, the control last."""
    claims = [claim for kind in study.kinds for claim in _of_kind(study.of(kind), regimes[kind])]
    return sorted(claims, key=lambda claim: claim.number)  # digits sort before the control


def _of_kind(study: Study, regime: Regime) -> list[Claim]:
    kind, curves = study.kind, study.curves
    shared = [
        claims_training.fewer_steps(kind, curves, regime),
        claims_training.less_time(kind, curves, regime),
        claims_models.quantisation(study),
        claims_models.pruning(study),
        claims_models.compressed_large_wins(study),
    ]
    if kind != ENCODER:
        return [*shared, claims_training.width_before_depth(curves, regime)]
    return [
        *shared,
        claims_training.shape_matters_little(curves),
        claims_models.finetuning_no_harder(study),
        *(Claim(number, text, needed, UNTESTED, ()) for number, text, needed in _NOT_IN_A_STUDY),
        claims_models.pretraining_helps(study),
    ]


_NOT_IN_A_STUDY = (
    ("4", "Growing the model pays more than growing the batch, once the batch is in the critical range.",
     "Needs runs of one size at several batch sizes; a study's grid keeps the batch fixed."),
    ("6", "How long a model was pretrained does not affect how well it quantises; its size does.",
     "Needs finetuned and quantised checkpoints of one size at several ages; a study uses the last one."),
    ("7", "With 5 % or 1 % of the text the advantage of size shrinks or reverses.",
     "Needs runs at several values of data.subsample."),
    ("8", "Quantising and pruning change the weights of deeper models less.",
     "Needs weight differences by layer type; results hold accuracies only."),
    ("9", "Sharing parameters across layers slows convergence.",
     "Needs runs at several values of model.share."),
)  # fmt: skip
