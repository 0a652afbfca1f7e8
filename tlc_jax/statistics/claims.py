"""The claims of "Train Large, Then Compress" (Li et al., 2020), each tested on one study.

A claim consists of its texts and one function that yields the findings. Every criterion was fixed
before the numbers were known; `uncertainty` defines what counts as clear. A claim without data is
"not tested" and says what it needs. Claims about a kind of model that a study does not have are
left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import combinations

from tlc_jax.statistics import uncertainty
from tlc_jax.statistics.curves import LOSS, by_size, measured, reaching, shared_end, values_at
from tlc_jax.statistics.frontier import summarize
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Kind, Size
from tlc_jax.statistics.records import Model, Study, best_model
from tlc_jax.statistics.regime import crossings
from tlc_jax.statistics.uncertainty import SCORE_MARGIN, Claim, clear, pool, trend

# Whether the criterion is met, and the numbers; None for numbers that do not decide it.
Findings = Iterator[tuple[bool | None, str]]
_Find = Callable[[Study], Findings]
_Test = Callable[[Study, Kind], Claim]

_EVERY = (ENCODER, TRANSLATOR)
_MATCHED_PARAMETERS = 1.25  # ratio up to which two sizes count as equally large
_MATCHED_LOSS = 0.05  # nats up to which two pretrained models count as equally good
_BUDGETS = 64  # memory budgets tried, evenly on a log scale

# Sentences that a criterion may take in, where they apply.
_ALSO = " The same for approx_bleu is listed and does not count."
_CARE = (
    " Read with care where the dense models are far apart: one with little BLEU has little to lose."
)
_CLAIMS: list[tuple[tuple[Kind, ...], _Test]] = []


def evaluate(study: Study) -> list[Claim]:
    """All claims in the paper's order; a claim about translation ends in -mt."""
    found = [
        claim(study.of(kind), kind)
        for kind in study.kinds
        for kinds, claim in _CLAIMS
        if kind in kinds
    ]
    found += _NOT_IN_A_STUDY if ENCODER in study.kinds else ()
    return sorted(found, key=lambda claim: claim.number)  # digits sort before "control"


def _claim(
    number: str, text: str, criterion: str, needed: str, kinds: tuple[Kind, ...] = _EVERY
) -> Callable[[_Find], _Test]:
    """Turns a function that finds evidence in one kind's part of a study into a claim.

    The claim holds where every finding meets the criterion.

    Args:
      number, text, criterion: see `Claim`; text without the topic of the kind.
      needed: what a study needs for the test.
      kinds: the kinds of model that the claim is about.
    """

    def register(find: _Find) -> _Test:
        def claim(study: Study, kind: Kind) -> Claim:
            found = list(find(study))
            told = [(met, line) for met, line in found if met is not None]
            verdict = uncertainty.HOLDS if all(met for met, _ in told) else uncertainty.FAILS
            also = _ALSO if len(measured(study.curves)) > 1 else ""
            care = _CARE if kind == TRANSLATOR else ""
            return Claim(
                f"{number}-mt" if kind == TRANSLATOR else number,
                kind.titled(text.format(kind=kind)),
                criterion.format(kind=kind, also=also, care=care),
                verdict if told else uncertainty.UNTESTED,
                tuple(line for _, line in told or found or [(None, needed)]),
            )

        _CLAIMS.append((kinds, claim))
        return claim

    return register


@_claim(
    "1a",
    "Larger models reach a given validation loss in fewer gradient steps.",
    "Validation loss at the last gradient step that every size reached falls with size.{also} Read "
    "with care: schedules follow each run's own budget, so at that step the learning rate has "
    "decayed for the size with the fewest steps only, which favors it.",
    needed="fewer than two sizes have loss curves",
)
def _fewer_steps(study: Study) -> Findings:
    return _faster(study, "steps")


@_claim(
    "1b",
    "The saving in steps outweighs their cost: larger models are also ahead in wall-clock time.",
    "Validation loss at the last training second that every size reached falls with size.{also}",
    needed="fewer than two sizes have loss curves",
)
def _less_time(study: Study) -> Findings:
    return _faster(study, "seconds")


def _faster(study: Study, axis: str) -> Findings:
    sizes, unit = by_size(study.curves), "s" if axis == "seconds" else axis
    if len(sizes) < 2:
        return
    smallest, end, holds = min(sizes), shared_end(study.curves, axis), False
    for of in measured(study.curves):
        values = {size: values_at(own, axis, end, of) for size, own in sizes.items()}
        signed = {size: [of.better * value for value in some] for size, some in values.items()}
        found = trend(signed, of.margin)
        # The worst seed of the smallest size: every seed of it gets there.
        goal = min(values[smallest], key=lambda value: of.better * value)
        costs = {size: reaching(own, axis, goal, of) for size, own in sizes.items()}
        ends = ", ".join(_ended(size, some) for size, some in values.items())
        reached = ", ".join(
            f"{size} {cost:,.0f} {unit}" if cost else f"{size} never"
            for size, cost in costs.items()
        )
        crossed = []
        if of == LOSS:  # which alone decides
            holds = found.holds
            crossed = [crossing.describe(unit) for crossing in crossings(study.curves, axis)]
        goal_text = f"{goal:.3f}{of.unit or f' {of.name}'}"
        for line in (
            f"{of.name} at {end:,.0f} {unit}: {ends}{of.unit} ({found})",
            *crossed,
            f"to reach {goal_text}, where {smallest} was then: {reached}",
        ):
            yield holds, line


_ROBUST = (
    "The loss of {kind.score} against the same seed's dense model falls with size, for every "
    "recipe listed.{care}"
)


@_claim(
    "2a",
    "Larger models lose less {kind.score} under quantization.",
    _ROBUST,
    needed="no recipe of quantization alone, beside dense, on two sizes",
)
def _robust_to_quantization(study: Study) -> Findings:
    """At the paper's 4 bits, or at the fewest bits tested."""
    bits = {m.recipe: m.bits for m in study.models if m.sparsity == 0 and m.bits < 32}
    chosen = 4.0 if 4.0 in bits.values() else min(bits.values(), default=0.0)
    return _robust(study, {recipe for recipe, value in bits.items() if value == chosen})


@_claim(
    "2b",
    "Larger models lose less {kind.score} under pruning.",
    _ROBUST,
    needed="no recipe of pruning alone, beside dense, on two sizes",
)
def _robust_to_pruning(study: Study) -> Findings:
    """At the highest sparsity tested."""
    pruned = [model for model in study.models if model.sparsity > 0 and model.bits == 32]
    # Rounded, because the sparsity reached differs between sizes by a few weights.
    sparsities = {model.recipe: round(model.sparsity, 2) for model in pruned}
    highest = max(sparsities.values(), default=0.0)
    return _robust(study, {recipe for recipe, value in sparsities.items() if value == highest})


def _robust(study: Study, recipes: Collection[str]) -> Findings:
    for task in study.tasks:
        dense = study.by_size(task)
        for recipe in sorted(recipes):
            drops = study.drops(task, recipe)
            if len(drops) < 2:
                continue
            # Turned around, because a trend is about values that are better larger.
            kept = {size: [-drop for drop in values] for size, values in drops.items()}
            found = trend(kept, SCORE_MARGIN)
            listing = ", ".join(
                f"{size} {summarize(values).written('.1f', 100)} of {dense[size].points.mean:.1f}"
                for size, values in drops.items()
            )
            yield found.holds, f"{task}, {recipe}: points lost {listing} ({found})"


@_claim(
    "2c",
    "For most memory budgets a large model, heavily compressed, is best.",
    "Between the artifacts of the smallest and the largest dense model, on a log scale of "
    "megabytes, the best compressed model of a size too large to fit dense clearly beats the "
    "best dense model that fits, over more than half of the range.",
    needed="needs dense artifacts of two sizes, and compressed ones",
)
def _compressed_large_wins(study: Study) -> Findings:
    for task in study.tasks:
        models = [model for model in study.models if model.task == task and model.pretrained]
        dense = [model for model in models if model.recipe == "dense"]
        compressed = [model for model in models if model.recipe != "dense"]
        low, high = (end((m.megabytes for m in dense), default=0.0) for end in (min, max))
        if low == high or not compressed:
            continue
        wins = 0
        for place in range(_BUDGETS):
            budget = low * (high / low) ** ((place + 0.5) / _BUDGETS)
            fitting = max(model.size for model in dense if model.megabytes <= budget)
            rival = best_model(dense, budget)
            ours = best_model([model for model in compressed if model.size > fitting], budget)
            wins += bool(rival and ours and _clearly(ours, rival, models) > 0)
        share = wins / _BUDGETS
        line = f"{task}: true over {share:.0%} of the range from {low:.3g} to {high:.3g} MB"
        yield share > 0.5, line


@_claim(
    "3",
    "Validation loss depends mainly on the number of parameters, little on depth against width.",
    f"Sizes whose parameters are within a factor {_MATCHED_PARAMETERS} but whose depths differ "
    "end, at equal steps, closer than a quarter of the range over all sizes.",
    needed="needs two sizes with about as many parameters but different depth, and a range of "
    "sizes around them",
    kinds=(ENCODER,),
)
def _shape_matters_little(study: Study) -> Findings:
    end = shared_end(study.curves, "steps") if study.curves else 0.0
    losses = {
        size: summarize(values_at(own, "steps", end)).mean
        for size, own in by_size(study.curves).items()
    }
    reach = max(losses.values(), default=0.0) - min(losses.values(), default=0.0)
    for small, large in combinations(losses, 2):
        alike = small.layers != large.layers and _ratio(small, large) <= _MATCHED_PARAMETERS
        # Where all sizes end alike, a quarter of their range is noise.
        if alike and reach > LOSS.margin:
            yield (
                abs(losses[small] - losses[large]) < reach / 4,
                f"{_counted(small)} {losses[small]:.3f}, {_counted(large)} {losses[large]:.3f} "
                f"nats at step {end:,.0f}; range over all sizes {reach:.3f}",
            )


@_claim(
    "3",
    "Width is to be preferred over depth.",
    "Of two sizes grown from the same trained size, one by width alone and one by depth alone, "
    "the wider is more often clearly ahead than clearly behind, in validation loss at the end "
    "of the training seconds that both reached: seconds are the cost that they share, "
    "parameters may differ. Two sizes whose parameters are within a factor "
    f"{_MATCHED_PARAMETERS} are compared even where the size they grew from was not trained. "
    "Each wider size is compared with the deeper one nearest to it in parameters.",
    needed="needs a size grown by width alone and one grown by depth alone from the same trained "
    "size, such as 2x256 and 4x128 beside 2x128, or two such sizes with parameters within a "
    f"factor {_MATCHED_PARAMETERS}",
    kinds=(TRANSLATOR,),
)
def width_before_depth(study: Study) -> Findings:
    sizes = by_size(study.curves)
    crossed = {(one.small, one.large): one for one in crossings(study.curves, "seconds")}
    balance, lines = 0, []
    for wide, deep in _wide_and_deep(list(sizes)):
        crossing = crossed[min(wide, deep), max(wide, deep)]
        # An outcome is that of the larger size, and the wider one may be the smaller.
        balance += crossing.outcome if wide > deep else -crossing.outcome
        line = f"wider {_counted(wide)}, deeper {_counted(deep)}: {crossing.describe('s')}"
        end = shared_end([*sizes[wide], *sizes[deep]], "seconds")
        for of in measured(study.curves)[1:]:
            ends = [(size, values_at(sizes[size], "seconds", end, of)) for size in (wide, deep)]
            line += f"; {of.name} {', '.join(_ended(size, values) for size, values in ends)}"
        lines.append(line)
    for line in lines:
        yield balance > 0, line


def _wide_and_deep(sizes: Sequence[Size]) -> list[tuple[Size, Size]]:
    """Pairs each wider size with the comparable deeper size that is nearest in parameters."""
    shapes = {(size.layers, size.hidden) for size in sizes}
    pairs = []
    for wide in sizes:
        deeper = [
            deep
            for deep in sizes
            if deep.hidden < wide.hidden and deep.layers > wide.layers
            # The size that both grew from has the depth of one and the width of the other.
            if (wide.layers, deep.hidden) in shapes or _ratio(wide, deep) <= _MATCHED_PARAMETERS
        ]
        if deeper:
            pairs.append((wide, min(deeper, key=lambda deep: _ratio(wide, deep))))
    return pairs


@_claim(
    "5",
    "Larger models are not harder to finetune: at equal pretraining loss they reach at least the "
    "same accuracy.",
    f"Of sizes whose pretraining losses lie within {_MATCHED_LOSS} nats, the larger is never "
    "clearly less accurate.",
    needed="needs dense rows with their pretraining loss",
    kinds=(ENCODER,),
)
def _finetuning_no_harder(study: Study) -> Findings:
    for task in study.tasks:
        dense = study.by_size(task)
        # NaN where the encoder was trained elsewhere, inf where its training went wrong.
        losses = {size: m.summary("pretrain_valid_loss").mean for size, m in dense.items()}
        reached = {
            size: f"{size} at {loss:.3f} nats reaches {_percent(dense[size])}"
            for size, loss in losses.items()
            if math.isfinite(loss)
        }
        for small, large in combinations(reached, 2):
            if abs(losses[small] - losses[large]) <= _MATCHED_LOSS:
                outcome = _clearly(dense[large], dense[small], dense.values())
                yield outcome >= 0, f"{task}: {reached[small]} against {reached[large]}"
        if reached:
            listing = "; ".join(reached.values())
            yield None, f"{task}: no two sizes are within {_MATCHED_LOSS} nats: {listing}"


@_claim(
    "control",
    "Control: pretraining helps. A pretrained model beats its own twin trained from scratch.",
    "The pretrained size with the best dense accuracy clearly beats its twin, on every task.",
    needed="no size was also finetuned from random weights",
    kinds=(ENCODER,),
)
def _pretraining_helps(study: Study) -> Findings:
    for task in study.tasks:
        dense, twins = study.by_size(task), study.by_size(task, pretrained=False)
        paired = [size for size in dense if size in twins]
        if not paired:
            continue
        best = max(paired, key=lambda size: dense[size].score.mean)
        wins = _clearly(dense[best], twins[best], [*dense.values(), *twins.values()]) > 0
        ours, theirs = _percent(dense[best]), _percent(twins[best])
        yield wins, f"{task}, {best}: pretrained {ours}, from scratch {theirs}"


def _clearly(better: Model, worse: Model, among: Iterable[Model]) -> int:
    """Returns 1 where the first model scores clearly higher, -1 where clearly lower, else 0.

    The spread of seeds is pooled over the models `among`.
    """
    spread = pool([model.scores.values() for model in among])
    return clear(worse.scores.values(), better.scores.values(), spread, SCORE_MARGIN)


def _percent(model: Model) -> str:
    """Writes the accuracy of a model with its number of seeds."""
    return f"{model.points.written('.1f')} % (n={model.score.n})"


def _ratio(first: Size, second: Size) -> float:
    return max(first.params, second.params) / min(first.params, second.params)


def _counted(size: Size) -> str:
    return f"{size} ({size.params / 1e6:.3g} M)"


def _ended(size: Size, values: Sequence[float]) -> str:
    return f"{size} {summarize(values).written('.3f')}"


_NOT_IN_A_STUDY = (
    Claim(
        "4",
        "Growing the model pays more than growing the batch, once the batch is in the critical "
        "range.",
        "Needs runs of one size at several batch sizes; a study's grid keeps the batch fixed.",
    ),
    Claim(
        "6",
        "How long a model was pretrained does not affect how well it quantizes; its size does.",
        "Needs finetuned and quantized checkpoints of one size at several ages; a study uses the "
        "last one.",
    ),
    Claim(
        "7",
        "With 5 % or 1 % of the text the advantage of size shrinks or reverses.",
        "Needs runs at several values of data.subsample.",
    ),
    Claim(
        "8",
        "Quantizing and pruning change the weights of deeper models less.",
        "Needs weight differences by layer type; results hold accuracies only.",
    ),
    Claim(
        "9",
        "Sharing parameters across layers slows convergence.",
        "Needs runs at several values of model.share.",
    ),
)
