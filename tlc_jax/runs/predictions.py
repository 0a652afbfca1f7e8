"""Per-instance predictions: what instance-level statistics and `tlc evaluate` share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tlc_jax.core.files import atomic


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A classifier's answers on one split of N examples over C classes, in the split's own order.

    Attributes:
      ids: [N] the examples' ids in their source.
      labels: int32 [N], -1 where unlabelled.
      probabilities: float32 [N, C].
      loss: mean cross-entropy (nats) over labelled examples.
    """

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of labelled examples whose most probable class is right."""
        known = self.labels >= 0
        return float(np.mean(self.probabilities[known].argmax(-1) == self.labels[known]))

    def save(self, path: Path) -> None:
        """Writes `ids`, `labels` and `probabilities` as an .npz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            np.savez_compressed(
                temporary, ids=self.ids, labels=self.labels, probabilities=self.probabilities
            )
