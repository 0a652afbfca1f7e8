"""Claims about evaluated models: what compression costs them, which fit a budget best, what pretraining is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tlc_jax.statistics.frontier import best_under, summarise
from tlc_jax.statistics.kinds import TRANSLATOR, Size
from tlc_jax.statistics.records import Model, Study
from tlc_jax.statistics.uncertainty import SCORE_MARGIN, clear, pool, trend
from tlc_jax.statistics.verdicts import FAILS, HOLDS, UNTESTED, Claim, headed, percent, points

_MATCHED_LOSS = 0.05  # nats up to which two pretrained models count as equally good
_BUDGETS = 64  # memory budgets tried, evenly on a log scale


def quantisation(study: Study) -> Claim:
    """Claim 2a."""
    return _robust(study, "2a", "quantisation", _lowest_bits(study))


def pruning(study: Study) -> Claim:
    """Claim 2b."""
    return _robust(study, "2b", "pruning", _highest_sparsity(study))


def _robust(study: Study, number: str, operation: str, recipes: Sequence[str]) -> Claim:
    score = study.kind.score
    number, text = headed(study.kind, number, f"Larger models lose less {score} under {operation}.")
    criterion = f"The loss of {score} against the same seed's dense model falls with size, for every recipe listed."
    if study.kind == TRANSLATOR:
        criterion += " Read with care where the dense models are far apart: one with little BLEU has little to lose."
    findings: list[tuple[bool, str]] = []
    for task in study.tasks:
        for recipe in recipes:
            drops = _drops(study, task, recipe)
            if len(drops) < 2:
                continue
            found = trend(
                {size: [-drop for drop in values] for size, values in drops.items()}, SCORE_MARGIN
            )
            dense = {
                m.size: m.score.mean
                for m in study.models
                if m.task == task and m.pretrained and m.recipe == "dense"
            }
            listing = ", ".join(
                f"{size} {points(v)} of {100 * dense[size]:.1f}" for size, v in drops.items()
            )
            findings.append((found.holds, f"{task}, {recipe}: points lost {listing} ({found})"))
    if not findings:
        needed = f"no recipe of {operation} alone, beside dense, on two sizes"
        return Claim(number, text, criterion, UNTESTED, (needed,))
    verdict = HOLDS if all(holds for holds, _ in findings) else FAILS
    return Claim(number, text, criterion, verdict, tuple(line for _, line in findings))


def _lowest_bits(study: Study) -> list[str]:
    """The recipes of quantisation alone at the paper's 4 bits, or at the fewest bits tested."""
    bits = {
        model.recipe: model.bits
        for model in study.models
        if model.sparsity == 0 and model.bits < 32
    }
    chosen = 4.0 if 4.0 in bits.values() else min(bits.values(), default=0.0)
    return sorted(recipe for recipe, value in bits.items() if value == chosen)


def _highest_sparsity(study: Study) -> list[str]:
    """The recipes of pruning alone at the highest sparsity tested."""
    sparsities = {
        m.recipe: round(m.sparsity, 2) for m in study.models if m.sparsity > 0 and m.bits == 32
    }
    highest = max(sparsities.values(), default=0.0)
    return sorted(recipe for recipe, value in sparsities.items() if value == highest)


def _drops(study: Study, task: str, recipe: str) -> dict[Size, list[float]]:
    """Score of the dense model minus that of the compressed one, seed by seed."""
    models = {(m.size, m.recipe): m for m in study.models if m.task == task and m.pretrained}
    drops = {}
    for size in study.sizes:
        dense, compressed = models.get((size, "dense")), models.get((size, recipe))
        if dense and compressed:
            seeds = sorted(dense.scores.keys() & compressed.scores.keys())
            drops[size] = [dense.scores[seed] - compressed.scores[seed] for seed in seeds]
    return {size: values for size, values in drops.items() if values}


def compressed_large_wins(study: Study) -> Claim:
    """Claim 2c."""
    text = "For most memory budgets a large model, heavily compressed, is best."
    number, text = headed(study.kind, "2c", text)
    criterion = (
        "Between the artifacts of the smallest and the largest dense model, on a log scale of megabytes, the best "
        "compressed model of a size too large to fit dense clearly beats the best dense model that fits, "
        "over more than half of the range."
    )
    findings = [found for task in study.tasks if (found := _budget_scan(study, task))]
    if not findings:
        needed = "needs dense artifacts of two sizes, and compressed ones"
        return Claim(number, text, criterion, UNTESTED, (needed,))
    verdict = HOLDS if all(share > 0.5 for share, _ in findings) else FAILS
    return Claim(number, text, criterion, verdict, tuple(line for _, line in findings))


def _budget_scan(study: Study, task: str) -> tuple[float, str] | None:
    models = [model for model in study.models if model.task == task and model.pretrained]
    dense = sorted((m for m in models if m.recipe == "dense"), key=lambda model: model.megabytes)
    compressed = [model for model in models if model.recipe != "dense"]
    if len(dense) < 2 or not compressed or dense[0].megabytes >= dense[-1].megabytes:
        return None
    spread = pool([list(model.scores.values()) for model in models])
    low, high = dense[0].megabytes, dense[-1].megabytes
    wins = 0
    for place in range(_BUDGETS):
        budget = low * (high / low) ** ((place + 0.5) / _BUDGETS)
        rival = _best([model for model in dense if model.megabytes <= budget], budget)
        fitting = max(model.size for model in dense if model.megabytes <= budget)
        ours = _best([model for model in compressed if model.size > fitting], budget)
        if rival and ours:
            first, second = list(rival.scores.values()), list(ours.scores.values())
            wins += clear(first, second, spread, SCORE_MARGIN) > 0
    share = wins / _BUDGETS
    return share, f"{task}: true over {share:.0%} of the range from {low:.3g} to {high:.3g} MB"


def _best(models: Sequence[Model], budget: float) -> Model | None:
    index = best_under(
        budget, [model.megabytes for model in models], [model.score.mean for model in models]
    )
    return None if index is None else models[index]


def finetuning_no_harder(study: Study) -> Claim:
    """Claim 5."""
    text = "Larger models are not harder to finetune: at equal pretraining loss they reach at least the same accuracy."
    criterion = f"Of sizes whose pretraining losses lie within {_MATCHED_LOSS} nats, the larger is never clearly less accurate."
    evidence, holds, tested = [], True, False
    for task in study.tasks:
        dense = {
            m.size: m
            for m in study.models
            if m.task == task and m.pretrained and m.recipe == "dense"
        }
        losses = {
            size: loss
            for size, model in dense.items()
            if (loss := _pretrain_loss(model)) is not None
        }
        spread = pool([list(model.scores.values()) for model in dense.values()])
        for small in sorted(losses):
            for large in sorted(size for size in losses if size > small):
                if abs(losses[small] - losses[large]) <= _MATCHED_LOSS:
                    first, second = (list(dense[size].scores.values()) for size in (small, large))
                    holds &= clear(first, second, spread, SCORE_MARGIN) >= 0
                    tested = True
                    evidence.append(
                        f"{task}: {_both(small, losses, first)} against {_both(large, losses, second)}"
                    )
        if losses and not tested:
            listing = "; ".join(
                _both(size, losses, list(dense[size].scores.values())) for size in sorted(losses)
            )
            evidence.append(f"{task}: no two sizes are within {_MATCHED_LOSS} nats: {listing}")
    verdict = UNTESTED if not tested else HOLDS if holds else FAILS
    return Claim(
        "5",
        text,
        criterion,
        verdict,
        tuple(evidence) or ("needs dense rows with their pretraining loss",),
    )


def _pretrain_loss(model: Model) -> float | None:
    losses = [
        row["pretrain_valid_loss"]
        for row in model.rows
        if row.get("pretrain_valid_loss") is not None
    ]
    return summarise(losses).mean if losses and all(map(math.isfinite, losses)) else None


def _both(size: Size, losses: Mapping[Size, float], scores: Sequence[float]) -> str:
    return f"{size} at {losses[size]:.3f} nats reaches {percent(scores)}"


def pretraining_helps(study: Study) -> Claim:
    """The control: what the other claims rest on."""
    text = "Control: pretraining helps. A pretrained model beats its own twin trained from scratch."
    criterion = (
        "The pretrained size with the best dense accuracy clearly beats its twin, on every task."
    )
    findings: list[tuple[bool, str]] = []
    for task in study.tasks:
        dense = {
            (m.size, m.pretrained): m
            for m in study.models
            if m.task == task and m.recipe == "dense"
        }
        paired = [size for size in study.sizes if (size, True) in dense and (size, False) in dense]
        if not paired:
            continue
        best = max(paired, key=lambda size: dense[size, True].score.mean)
        scratch, pretrained = (list(dense[best, kind].scores.values()) for kind in (False, True))
        spread = pool([list(model.scores.values()) for model in dense.values()])
        wins = clear(scratch, pretrained, spread, SCORE_MARGIN) > 0
        line = f"{task}, {best}: pretrained {percent(pretrained)}, from scratch {percent(scratch)}"
        findings.append((wins, line))
    if not findings:
        return Claim(
            "control",
            text,
            criterion,
            UNTESTED,
            ("no size was also finetuned from random weights",),
        )
    verdict = HOLDS if all(wins for wins, _ in findings) else FAILS
    return Claim("control", text, criterion, verdict, tuple(line for _, line in findings))
