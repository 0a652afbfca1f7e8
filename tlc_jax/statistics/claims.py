"""The claims of "Train Large, Then Compress" (Li et al., 2020), each tested on one study.

Every criterion was fixed before the numbers were known; `uncertainty` defines what counts as clear.
A claim without data is "not tested" and says what it needs. Claims about a kind of model that a
study does not have are left out. Claims about training are in `claims_training`; here are those
about evaluated models: what compression costs, which model fits a budget best, what pretraining is
worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from tlc_jax.statistics import claims_training
from tlc_jax.statistics.frontier import best_under, summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind, Size
from tlc_jax.statistics.records import Model, Study
from tlc_jax.statistics.regime import Regime
from tlc_jax.statistics.uncertainty import SCORE_MARGIN, Claim, clear, judge, pool, trend

_MATCHED_LOSS = 0.05  # nats up to which two pretrained models count as equally good
_BUDGETS = 64  # memory budgets tried, evenly on a log scale


def evaluate(study: Study, regimes: Mapping[Kind, Regime]) -> list[Claim]:
    """All claims in the paper's order; those about translation (-mt) follow their likes."""
    claims = [claim for kind in study.kinds for claim in _of_kind(study.of(kind), regimes[kind])]
    return sorted(claims, key=lambda claim: claim.number)  # digits sort before "control"


def _of_kind(study: Study, regime: Regime) -> list[Claim]:
    kind, curves = study.kind, study.curves
    shared = [
        claims_training.fewer_steps(kind, curves, regime),
        claims_training.less_time(kind, curves, regime),
        _robust(study, "2a", "quantization", _lowest_bits(study)),
        _robust(study, "2b", "pruning", _highest_sparsity(study)),
        _compressed_large_wins(study),
    ]
    if kind == TRANSLATOR:
        return [*shared, claims_training.width_before_depth(curves, regime)]
    return [
        *shared,
        claims_training.shape_matters_little(curves),
        _finetuning_no_harder(study),
        *(judge(ENCODER, number, text, needed, []) for number, text, needed in _NOT_IN_A_STUDY),
        _pretraining_helps(study),
    ]


_NOT_IN_A_STUDY = (
    (
        "4",
        "Growing the model pays more than growing the batch, once the batch is in the critical "
        "range.",
        "Needs runs of one size at several batch sizes; a study's grid keeps the batch fixed.",
    ),
    (
        "6",
        "How long a model was pretrained does not affect how well it quantizes; its size does.",
        "Needs finetuned and quantized checkpoints of one size at several ages; a study uses the "
        "last one.",
    ),
    (
        "7",
        "With 5 % or 1 % of the text the advantage of size shrinks or reverses.",
        "Needs runs at several values of data.subsample.",
    ),
    (
        "8",
        "Quantizing and pruning change the weights of deeper models less.",
        "Needs weight differences by layer type; results hold accuracies only.",
    ),
    (
        "9",
        "Sharing parameters across layers slows convergence.",
        "Needs runs at several values of model.share.",
    ),
)


def _robust(study: Study, number: str, operation: str, recipes: Sequence[str]) -> Claim:
    """Claims 2a and 2b, on recipes of one operation alone."""
    score = study.kind.score
    text = f"Larger models lose less {score} under {operation}."
    criterion = (
        f"The loss of {score} against the same seed's dense model falls with size, for every "
        "recipe listed."
    )
    if study.kind == TRANSLATOR:
        criterion += (
            " Read with care where the dense models are far apart: one with little BLEU has little "
            "to lose."
        )
    findings: list[tuple[bool, str]] = []
    for task in study.tasks:
        dense = study.by_size(task)
        for recipe in recipes:
            drops = _drops(study, task, recipe)
            if len(drops) < 2:
                continue
            kept = {size: [-drop for drop in values] for size, values in drops.items()}
            found = trend(kept, SCORE_MARGIN)
            listing = ", ".join(
                f"{size} {_points(values)} of {100 * dense[size].score.mean:.1f}"
                for size, values in drops.items()
            )
            findings.append((found.holds, f"{task}, {recipe}: points lost {listing} ({found})"))
    needed = f"no recipe of {operation} alone, beside dense, on two sizes"
    return judge(study.kind, number, text, criterion, findings, needed)


def _lowest_bits(study: Study) -> list[str]:
    """The recipes of quantization alone at the paper's 4 bits, or at the fewest bits tested."""
    bits = {m.recipe: m.bits for m in study.models if m.sparsity == 0 and m.bits < 32}
    chosen = 4.0 if 4.0 in bits.values() else min(bits.values(), default=0.0)
    return sorted(recipe for recipe, value in bits.items() if value == chosen)


def _highest_sparsity(study: Study) -> list[str]:
    """The recipes of pruning alone at the highest sparsity tested."""
    pruned = [model for model in study.models if model.sparsity > 0 and model.bits == 32]
    sparsities = {model.recipe: round(model.sparsity, 2) for model in pruned}
    highest = max(sparsities.values(), default=0.0)
    return sorted(recipe for recipe, value in sparsities.items() if value == highest)


def _drops(study: Study, task: str, recipe: str) -> dict[Size, list[float]]:
    """Score of the dense model minus that of the compressed one, seed by seed."""
    dense, compressed = study.by_size(task), study.by_size(task, recipe)
    drops = {}
    for size in sorted(dense.keys() & compressed.keys()):
        before, after = dense[size].scores, compressed[size].scores
        drops[size] = [before[seed] - after[seed] for seed in sorted(before.keys() & after.keys())]
    return {size: values for size, values in drops.items() if values}


def _compressed_large_wins(study: Study) -> Claim:
    """Claim 2c."""
    text = "For most memory budgets a large model, heavily compressed, is best."
    criterion = (
        "Between the artifacts of the smallest and the largest dense model, on a log scale of "
        "megabytes, the best compressed model of a size too large to fit dense clearly beats the "
        "best dense model that fits, over more than half of the range."
    )
    findings = [found for task in study.tasks if (found := _budget_scan(study, task))]
    needed = "needs dense artifacts of two sizes, and compressed ones"
    return judge(study.kind, "2c", text, criterion, findings, needed)


def _budget_scan(study: Study, task: str) -> tuple[bool, str] | None:
    models = [model for model in study.models if model.task == task and model.pretrained]
    dense = sorted((m for m in models if m.recipe == "dense"), key=lambda model: model.megabytes)
    compressed = [model for model in models if model.recipe != "dense"]
    if len(dense) < 2 or not compressed or dense[0].megabytes >= dense[-1].megabytes:
        return None
    spread = pool([_scores(model) for model in models])
    low, high = dense[0].megabytes, dense[-1].megabytes
    wins = 0
    for place in range(_BUDGETS):
        budget = low * (high / low) ** ((place + 0.5) / _BUDGETS)
        fitting = max(model.size for model in dense if model.megabytes <= budget)
        rival = _best(dense, budget)
        ours = _best([model for model in compressed if model.size > fitting], budget)
        if rival and ours:
            wins += clear(_scores(rival), _scores(ours), spread, SCORE_MARGIN) > 0
    share = wins / _BUDGETS
    line = f"{task}: true over {share:.0%} of the range from {low:.3g} to {high:.3g} MB"
    return share > 0.5, line


def _best(models: Sequence[Model], budget: float) -> Model | None:
    costs, scores = [m.megabytes for m in models], [m.score.mean for m in models]
    index = best_under(budget, costs, scores)
    return None if index is None else models[index]


def _finetuning_no_harder(study: Study) -> Claim:
    """Claim 5."""
    text = (
        "Larger models are not harder to finetune: at equal pretraining loss they reach at least "
        "the same accuracy."
    )
    criterion = (
        f"Of sizes whose pretraining losses lie within {_MATCHED_LOSS} nats, the larger is never "
        "clearly less accurate."
    )
    evidence, tested = [], False
    for task in study.tasks:
        dense = study.by_size(task)
        spread = pool([_scores(model) for model in dense.values()])
        losses = {
            size: loss
            for size, model in sorted(dense.items())
            if (loss := _pretrain_loss(model)) is not None
        }
        reached = {
            size: f"{size} at {loss:.3f} nats reaches {_percent(dense[size])}"
            for size, loss in losses.items()
        }
        for small, large in combinations(losses, 2):
            if abs(losses[small] - losses[large]) <= _MATCHED_LOSS:
                tested = True
                outcome = clear(_scores(dense[small]), _scores(dense[large]), spread, SCORE_MARGIN)
                evidence.append(
                    (outcome >= 0, f"{task}: {reached[small]} against {reached[large]}")
                )
        if losses and not tested:
            listing = "; ".join(reached.values())
            evidence.append(
                (True, f"{task}: no two sizes are within {_MATCHED_LOSS} nats: {listing}")
            )
    needed = [line for _, line in evidence] or ["needs dense rows with their pretraining loss"]
    return judge(ENCODER, "5", text, criterion, evidence if tested else [], *needed)


def _pretrain_loss(model: Model) -> float | None:
    losses = [
        row["pretrain_valid_loss"]
        for row in model.rows
        if row.get("pretrain_valid_loss") is not None
    ]
    return summarize(losses).mean if losses and all(map(math.isfinite, losses)) else None


def _pretraining_helps(study: Study) -> Claim:
    """The control, which the other claims rest on."""
    text = "Control: pretraining helps. A pretrained model beats its own twin trained from scratch."
    criterion = (
        "The pretrained size with the best dense accuracy clearly beats its twin, on every task."
    )
    findings: list[tuple[bool, str]] = []
    for task in study.tasks:
        dense, twins = study.by_size(task), study.by_size(task, pretrained=False)
        paired = sorted(dense.keys() & twins.keys())
        if not paired:
            continue
        best = max(paired, key=lambda size: dense[size].score.mean)
        spread = pool([_scores(model) for model in (*dense.values(), *twins.values())])
        wins = clear(_scores(twins[best]), _scores(dense[best]), spread, SCORE_MARGIN) > 0
        line = (
            f"{task}, {best}: pretrained {_percent(dense[best])}, "
            f"from scratch {_percent(twins[best])}"
        )
        findings.append((wins, line))
    needed = "no size was also finetuned from random weights"
    return judge(ENCODER, "control", text, criterion, findings, needed)


def _scores(model: Model) -> list[float]:
    return list(model.scores.values())


def _points(values: Sequence[float]) -> str:
    return summarize(values).written(".1f", 100)


def _percent(model: Model) -> str:
    """Accuracy with the number of seeds."""
    return f"{_points(_scores(model))} % (n={model.score.n})"
