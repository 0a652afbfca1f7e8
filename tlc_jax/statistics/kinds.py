"""The kinds of model that a study trains: how each is scored, where its numbers stand, and the words for it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """A number that is shown beside the score."""

    field: str  # of results.jsonl or result.json
    heading: str
    form: str


@dataclasses.dataclass(frozen=True, order=True)  # ordered, because sizes are
class Kind:
    """A kind of model. Scores are fractions, 0 to 1, wherever they are computed with, and times 100 where shown."""

    name: str  # in the column `kind` of results.jsonl
    models: str  # several of them
    topic: str  # opens titles and claims; none: encoders, which everything was about first
    job: str  # what the names of its training jobs start with
    training: str  # what that training is called
    field: str  # the column of its score
    full: float  # the highest score in that column
    score: str
    heading: str  # of a column of scores
    unit: str  # after a score
    points: str  # what differences of scores, times 100, are counted in
    loss_unit: str
    beside: tuple[Column, ...] = ()  # other scores of an evaluated model
    trained: tuple[Column, ...] = ()  # scores that its training jobs leave in result.json

    def titled(self, text: str) -> str:
        """A title or a claim, opened by the topic."""
        return f"{self.topic}: {text[:1].lower()}{text[1:]}" if self.topic else text


_APPROX_BLEU = Column("approx_bleu", "approx_bleu", ".3f")
_CHRF = Column("chrf", "chrF", ".1f")

ENCODER = Kind(
    name="encoder",
    models="encoders",
    topic="",
    job="pretrain",
    training="pretraining",
    field="accuracy",
    full=1.0,
    score="accuracy",
    heading="accuracy (%)",
    unit="%",
    points="percentage points",
    loss_unit="nats per predicted token",
)
TRANSLATOR = Kind(
    name="translator",
    models="translators",
    topic="Translation",
    job="translate",
    training="translation",
    field="bleu",
    full=100.0,
    score="BLEU",
    heading="BLEU",
    unit="BLEU",
    points="points",
    loss_unit="nats per target token",
    beside=(_CHRF, Column("bleu_tokenized", "tokenised BLEU", ".1f"), _APPROX_BLEU),
    trained=(_APPROX_BLEU, Column("bleu", "BLEU", ".1f"), _CHRF),
)
KINDS = {kind.name: kind for kind in (ENCODER, TRANSLATOR)}

Shape = tuple[int, int, Kind]  # layers, hidden, kind


@dataclasses.dataclass(frozen=True, order=True)
class Size:
    """A shape of one kind of model; ordered by parameters, as every figure and table is."""

    params: (
        int  # of the finetuned classifier, or of the pretraining model where nothing was finetuned
    )
    layers: int
    hidden: int
    kind: Kind = ENCODER

    def __str__(self) -> str:
        return f"{self.layers}x{self.hidden}"
