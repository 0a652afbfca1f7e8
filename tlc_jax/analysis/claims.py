"""The claims of "Train Large, Then Compress" (Li et al., 2020), each put to the numbers of one study.

A claim is tested by a criterion that was fixed before the numbers were seen; `spread.RULE` says what counts as clear.
What a study has no data for is "not tested", and says what would be needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tlc_jax.analysis import regime as regimes
from tlc_jax.analysis.frontier import best_under, group, summarise
from tlc_jax.analysis.records import Curve, Model, Size, Study
from tlc_jax.analysis.spread import ACCURACY_MARGIN, LOSS_MARGIN, clear, pool, trend

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested"
_MATCHED_PARAMETERS = 1.25  # ratio up to which two sizes count as equally large
_MATCHED_LOSS = 0.05  # nats up to which two pretrained models count as equally good
_BUDGETS = 64  # memory budgets tried, evenly on a log scale


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim, the test it was put to, what was found and the verdict."""

    number: str  # of the claim in the paper's order
    text: str
    criterion: str
    verdict: str
    evidence: tuple[str, ...]  # one finding each, with the numbers


def evaluate(study: Study, regime: regimes.Regime) -> list[Claim]:
    """All claims in the paper's order, and the control that pretraining helps at all."""
    claims = [
        _fewer_steps(study.curves, regime),
        _less_time(study.curves, regime),
        _robust(study, "2a", "quantisation", _lowest_bits(study)),
        _robust(study, "2b", "pruning", _highest_sparsity(study)),
        _compressed_large_wins(study),
        _shape_matters_little(study.curves),
        _finetuning_no_harder(study),
        *(Claim(number, text, needed, UNTESTED, ()) for number, text, needed in _NOT_IN_A_STUDY),
        _pretraining_helps(study),
    ]
    return sorted(claims, key=lambda claim: claim.number)  # digits sort before the control


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


def _fewer_steps(curves: Sequence[Curve], regime: regimes.Regime) -> Claim:
    text = "Larger models reach a given validation loss in fewer gradient steps."
    return _faster("1a", text, curves, "steps", "steps", regime.steps)


def _less_time(curves: Sequence[Curve], regime: regimes.Regime) -> Claim:
    text = "The saving in steps outweighs their cost: larger models are also ahead in wall-clock time."
    return _faster("1b", text, curves, "seconds", "s", regime.seconds)


_SCHEDULE_CAVEAT = (
    " Read with care: schedules follow each run's own budget, so at that step the learning rate has decayed for the "
    "size with the fewest steps only, which favours it."
)


def _faster(
    number: str, text: str, curves: Sequence[Curve], axis: str, unit: str, crossings: Sequence[regimes.Crossing]
) -> Claim:
    name = "gradient step" if axis == "steps" else "training second"
    criterion = f"Validation loss at the last {name} that every size reached falls with size."
    if axis == "steps":
        criterion += _SCHEDULE_CAVEAT
    by_size = group(sorted(curves, key=lambda curve: curve.size), lambda curve: curve.size)
    if len(by_size) < 2:
        return Claim(number, text, criterion, UNTESTED, ("fewer than two sizes have loss curves",))
    end = regimes.shared_end(curves, axis)
    losses = {size: regimes.losses_at(members, axis, end) for size, members in by_size.items()}
    found = trend({size: [-loss for loss in values] for size, values in losses.items()}, LOSS_MARGIN)
    listing = ", ".join(f"{size} {_spread(values, '.3f')}" for size, values in losses.items())
    evidence = [f"valid_loss at {end:,.0f} {unit}: {listing} nats ({found})"]
    evidence += [crossing.describe(unit) for crossing in crossings]
    goal = max(losses[min(by_size)])  # every seed of the smallest size gets there
    costs = {size: regimes.reaching(members, axis, goal) for size, members in by_size.items()}
    reached = ", ".join(f"{size} {cost:,.0f} {unit}" if cost else f"{size} never" for size, cost in costs.items())
    evidence.append(f"to reach {goal:.3f} nats, where {min(by_size)} was then: {reached}")
    return Claim(number, text, criterion, HOLDS if found.holds else FAILS, tuple(evidence))


def _robust(study: Study, number: str, operation: str, recipes: Sequence[str]) -> Claim:
    text = f"Larger models lose less accuracy under {operation}."
    criterion = "The loss of accuracy against the same seed's dense model falls with size, for every recipe listed."
    findings: list[tuple[bool, str]] = []
    for task in study.tasks:
        for recipe in recipes:
            drops = _drops(study, task, recipe)
            if len(drops) < 2:
                continue
            found = trend({size: [-drop for drop in values] for size, values in drops.items()}, ACCURACY_MARGIN)
            dense = {
                m.size: m.accuracy.mean for m in study.models if m.task == task and m.pretrained and m.recipe == "dense"
            }
            listing = ", ".join(f"{size} {_points(v)} of {100 * dense[size]:.1f}" for size, v in drops.items())
            findings.append((found.holds, f"{task}, {recipe}: points lost {listing} ({found})"))
    if not findings:
        needed = f"no recipe of {operation} alone, beside dense, on two sizes"
        return Claim(number, text, criterion, UNTESTED, (needed,))
    verdict = HOLDS if all(holds for holds, _ in findings) else FAILS
    return Claim(number, text, criterion, verdict, tuple(line for _, line in findings))


def _lowest_bits(study: Study) -> list[str]:
    """The recipes of quantisation alone at the paper's 4 bits, or at the fewest bits tested."""
    bits = {model.recipe: model.bits for model in study.models if model.sparsity == 0 and model.bits < 32}
    chosen = 4.0 if 4.0 in bits.values() else min(bits.values(), default=0.0)
    return sorted(recipe for recipe, value in bits.items() if value == chosen)


def _highest_sparsity(study: Study) -> list[str]:
    """The recipes of pruning alone at the highest sparsity tested."""
    sparsities = {m.recipe: round(m.sparsity, 2) for m in study.models if m.sparsity > 0 and m.bits == 32}
    highest = max(sparsities.values(), default=0.0)
    return sorted(recipe for recipe, value in sparsities.items() if value == highest)


def _drops(study: Study, task: str, recipe: str) -> dict[Size, list[float]]:
    """Accuracy of the dense model minus that of the compressed one, seed by seed."""
    models = {(m.size, m.recipe): m for m in study.models if m.task == task and m.pretrained}
    drops = {}
    for size in study.sizes:
        dense, compressed = models.get((size, "dense")), models.get((size, recipe))
        if dense and compressed:
            seeds = sorted(dense.accuracies.keys() & compressed.accuracies.keys())
            drops[size] = [dense.accuracies[seed] - compressed.accuracies[seed] for seed in seeds]
    return {size: values for size, values in drops.items() if values}


def _compressed_large_wins(study: Study) -> Claim:
    text = "For most memory budgets a large model, heavily compressed, is best."
    criterion = (
        "Between the artifacts of the smallest and the largest dense model, on a log scale of megabytes, the best "
        "compressed model of a size too large to fit dense clearly beats the best dense model that fits, "
        "over more than half of the range."
    )
    findings = [found for task in study.tasks if (found := _budget_scan(study, task))]
    if not findings:
        needed = "needs dense artifacts of two sizes, and compressed ones"
        return Claim("2c", text, criterion, UNTESTED, (needed,))
    verdict = HOLDS if all(share > 0.5 for share, _ in findings) else FAILS
    return Claim("2c", text, criterion, verdict, tuple(line for _, line in findings))


def _budget_scan(study: Study, task: str) -> tuple[float, str] | None:
    models = [model for model in study.models if model.task == task and model.pretrained]
    dense = sorted((m for m in models if m.recipe == "dense"), key=lambda model: model.megabytes)
    compressed = [model for model in models if model.recipe != "dense"]
    if len(dense) < 2 or not compressed or dense[0].megabytes >= dense[-1].megabytes:
        return None
    spread = pool([list(model.accuracies.values()) for model in models])
    low, high = dense[0].megabytes, dense[-1].megabytes
    wins = 0
    for place in range(_BUDGETS):
        budget = low * (high / low) ** ((place + 0.5) / _BUDGETS)
        rival = _best([model for model in dense if model.megabytes <= budget], budget)
        fitting = max(model.size for model in dense if model.megabytes <= budget)
        ours = _best([model for model in compressed if model.size > fitting], budget)
        if rival and ours:
            first, second = list(rival.accuracies.values()), list(ours.accuracies.values())
            wins += clear(first, second, spread, ACCURACY_MARGIN) > 0
    share = wins / _BUDGETS
    return share, f"{task}: true over {share:.0%} of the range from {low:.3g} to {high:.3g} MB"


def _best(models: Sequence[Model], budget: float) -> Model | None:
    index = best_under(budget, [model.megabytes for model in models], [model.accuracy.mean for model in models])
    return None if index is None else models[index]


def _shape_matters_little(curves: Sequence[Curve]) -> Claim:
    text = "Validation loss depends mainly on the number of parameters, little on depth against width."
    criterion = (
        f"Sizes whose parameters are within a factor {_MATCHED_PARAMETERS} but whose depths differ end, at equal "
        "steps, closer than a quarter of the range over all sizes."
    )
    by_size = group(sorted(curves, key=lambda curve: curve.size), lambda curve: curve.size)
    end = regimes.shared_end(curves, "steps") if curves else 0.0
    losses = {size: summarise(regimes.losses_at(members, "steps", end)).mean for size, members in by_size.items()}
    matched = [
        (small, large)
        for small in losses
        for large in losses
        if small < large and small.layers != large.layers and large.params <= _MATCHED_PARAMETERS * small.params
    ]
    reach = max(losses.values(), default=0.0) - min(losses.values(), default=0.0)
    if not matched or reach <= LOSS_MARGIN:
        needed = "needs two sizes with about as many parameters but different depth, and a range of sizes around them"
        return Claim("3", text, criterion, UNTESTED, (needed,))
    holds = all(abs(losses[small] - losses[large]) < reach / 4 for small, large in matched)
    evidence = [
        f"{small} ({_millions(small)}) {losses[small]:.3f}, {large} ({_millions(large)}) {losses[large]:.3f} nats "
        f"at step {end:,.0f}; range over all sizes {reach:.3f}"
        for small, large in matched
    ]
    return Claim("3", text, criterion, HOLDS if holds else FAILS, tuple(evidence))


def _finetuning_no_harder(study: Study) -> Claim:
    text = "Larger models are not harder to finetune: at equal pretraining loss they reach at least the same accuracy."
    criterion = (
        f"Of sizes whose pretraining losses lie within {_MATCHED_LOSS} nats, the larger is never clearly less accurate."
    )
    evidence, holds, tested = [], True, False
    for task in study.tasks:
        dense = {m.size: m for m in study.models if m.task == task and m.pretrained and m.recipe == "dense"}
        losses = {size: loss for size, model in dense.items() if (loss := _pretrain_loss(model)) is not None}
        spread = pool([list(model.accuracies.values()) for model in dense.values()])
        for small in sorted(losses):
            for large in sorted(size for size in losses if size > small):
                if abs(losses[small] - losses[large]) <= _MATCHED_LOSS:
                    first, second = (list(dense[size].accuracies.values()) for size in (small, large))
                    holds &= clear(first, second, spread, ACCURACY_MARGIN) >= 0
                    tested = True
                    evidence.append(f"{task}: {_both(small, losses, first)} against {_both(large, losses, second)}")
        if losses and not tested:
            listing = "; ".join(_both(size, losses, list(dense[size].accuracies.values())) for size in sorted(losses))
            evidence.append(f"{task}: no two sizes are within {_MATCHED_LOSS} nats: {listing}")
    verdict = UNTESTED if not tested else HOLDS if holds else FAILS
    return Claim("5", text, criterion, verdict, tuple(evidence) or ("needs dense rows with their pretraining loss",))


def _pretrain_loss(model: Model) -> float | None:
    losses = [row["pretrain_valid_loss"] for row in model.rows if row.get("pretrain_valid_loss") is not None]
    return summarise(losses).mean if losses and all(map(math.isfinite, losses)) else None


def _both(size: Size, losses: Mapping[Size, float], accuracies: Sequence[float]) -> str:
    return f"{size} at {losses[size]:.3f} nats reaches {_percent(accuracies)}"


def _pretraining_helps(study: Study) -> Claim:
    text = "Control: pretraining helps. A pretrained model beats its own twin trained from scratch."
    criterion = "The pretrained size with the best dense accuracy clearly beats its twin, on every task."
    findings: list[tuple[bool, str]] = []
    for task in study.tasks:
        dense = {(m.size, m.pretrained): m for m in study.models if m.task == task and m.recipe == "dense"}
        paired = [size for size in study.sizes if (size, True) in dense and (size, False) in dense]
        if not paired:
            continue
        best = max(paired, key=lambda size: dense[size, True].accuracy.mean)
        scratch, pretrained = (list(dense[best, kind].accuracies.values()) for kind in (False, True))
        spread = pool([list(model.accuracies.values()) for model in dense.values()])
        wins = clear(scratch, pretrained, spread, ACCURACY_MARGIN) > 0
        line = f"{task}, {best}: pretrained {_percent(pretrained)}, from scratch {_percent(scratch)}"
        findings.append((wins, line))
    if not findings:
        return Claim("control", text, criterion, UNTESTED, ("no size was also finetuned from random weights",))
    verdict = HOLDS if all(wins for wins, _ in findings) else FAILS
    return Claim("control", text, criterion, verdict, tuple(line for _, line in findings))


def _spread(values: Sequence[float], form: str) -> str:
    found = summarise(values)
    return f"{found.mean:{form}}" + (f" ± {found.std:{form}}" if found.n > 1 else "")


def _points(values: Sequence[float]) -> str:
    return _spread([100 * value for value in values], ".1f")


def _percent(values: Sequence[float]) -> str:
    return f"{_points(values)} % (n={len(values)})"


def _millions(size: Size) -> str:
    return f"{size.params / 1e6:.3g} M"
