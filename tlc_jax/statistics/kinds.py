"""The kinds of model that a study trains: which score each has, and the words for it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """A number shown beside the score.

    Attributes:
      field: its name in results.jsonl or result.json.
      heading: heading of its column.
      form: format of its values.
    """

    field: str
    heading: str
    form: str


@dataclasses.dataclass(frozen=True, order=True)  # ordered, because sizes are
class Kind:
    """A kind of model. Scores are fractions in computations, and times 100 where shown.

    Attributes:
      name: value of the column `kind` of results.jsonl.
      topic: opening of titles and claims; empty for encoders.
      job: prefix of the names of its training jobs.
      training: noun for that training.
      field: column of its score in results.jsonl.
      full: highest score in that column.
      score, heading, unit: noun for the score, heading of its column, unit after a value.
      points: unit of differences between scores, times 100.
      loss_unit: unit of the validation loss.
      beside: other scores of an evaluated model.
      trained: scores that its training jobs leave in result.json.
    """

    name: str
    topic: str
    job: str
    training: str
    field: str
    full: float
    score: str
    heading: str
    unit: str
    points: str
    loss_unit: str
    beside: tuple[Column, ...] = ()
    trained: tuple[Column, ...] = ()

    def titled(self, text: str) -> str:
        """Puts the topic before a title or claim."""
        return f"{self.topic}: {text[:1].lower()}{text[1:]}" if self.topic else text


_APPROX_BLEU = Column("approx_bleu", "approx_bleu", ".3f")
_CHRF = Column("chrf", "chrF", ".1f")

ENCODER = Kind(
    name="encoder",
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
    beside=(_CHRF, Column("bleu_tokenized", "tokenized BLEU", ".1f"), _APPROX_BLEU),
    trained=(_APPROX_BLEU, Column("bleu", "BLEU", ".1f"), _CHRF),
)
KINDS = {kind.name: kind for kind in (ENCODER, TRANSLATOR)}

Shape = tuple[int, int, Kind]  # layers, hidden, kind


@dataclasses.dataclass(frozen=True, order=True)
class Size:
    """A shape of one kind of model; sizes are ordered by parameters.

    Attributes:
      params: parameters of the finetuned classifier, or of the pretraining model where nothing was
        finetuned.
      layers, hidden, kind: depth, width of the residual stream, kind of model.
    """

    params: int
    layers: int
    hidden: int
    kind: Kind = ENCODER

    def __str__(self) -> str:
        return f"{self.layers}x{self.hidden}"
