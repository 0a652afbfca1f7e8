"""What can be scored on labelled pairs without understanding them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from tlc_jax.synthetic import LABELS, pairs

TRAIN_PAIRS = 12_000
PARTS = {"hypothesis_only": ("hypothesis",), "bag_of_words": ("premise", "hypothesis", "both")}


def baselines(seed: int = 0, epochs: int = 10) -> dict[str, float]:
    """Accuracy on the validation pairs of three baselines, fitted to TRAIN_PAIRS training pairs.

    Returns:
      `majority`; `hypothesis_only`, by the words of the hypothesis; and `bag_of_words`, by those of
      the premise, of the hypothesis, and of both. Words go through a logistic regression.
    """
    train = list(itertools.islice(pairs("train", seed), TRAIN_PAIRS))
    valid = list(pairs("valid", seed))
    targets, truth = (
        np.array([LABELS.index(one) for *_, one in split]) for split in (train, valid)
    )
    scores = {"majority": float(np.mean(truth == np.bincount(targets).argmax()))}
    for name, parts in PARTS.items():
        vocabulary: dict[str, int] = {}
        bags = [bag(*pair[:2], parts, vocabulary, grow=True) for pair in train]
        weights = fit(bags, targets, len(vocabulary), epochs)
        tests = [bag(*pair[:2], parts, vocabulary, grow=False) for pair in valid]
        guesses = np.array([weights[one].sum(0).argmax() for one in tests])
        scores[name] = float(np.mean(guesses == truth))
    return scores


def bag(
    premise: str, hypothesis: str, parts: Sequence[str], vocabulary: dict[str, int], grow: bool
) -> list[int]:
    """The feature numbers of a pair's words, each word once for each part; 0 is the bias."""
    vocabulary.setdefault("", 0)
    words = {
        "premise": set(re.findall(r"\w+", premise.lower())),
        "hypothesis": set(re.findall(r"\w+", hypothesis.lower())),
    }
    words["both"] = words["premise"] & words["hypothesis"]
    numbers = [0]
    for feature in (f"{part}:{word}" for part in parts for word in sorted(words[part])):
        if grow:
            vocabulary.setdefault(feature, len(vocabulary))
        if feature in vocabulary:
            numbers.append(vocabulary[feature])
    return numbers


def fit(bags: Sequence[list[int]], targets: np.ndarray, features: int, epochs: int) -> np.ndarray:
    """Weights [features, classes] of a logistic regression, by AdaGrad over batches of 64."""
    weights = np.zeros((features, len(LABELS)))
    scale = np.full(weights.shape, 1e-8)
    order = np.random.Generator(np.random.PCG64(0))
    for _ in range(epochs):
        for batch in np.array_split(order.permutation(len(bags)), len(bags) // 64):
            lengths = [len(bags[i]) for i in batch]
            columns = np.concatenate([bags[i] for i in batch])
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            logits = np.add.reduceat(weights[columns], starts)
            chances = np.exp(logits - logits.max(1, keepdims=True))
            chances /= chances.sum(1, keepdims=True)
            chances[np.arange(len(batch)), targets[batch]] -= 1
            rows, inverse = np.unique(columns, return_inverse=True)
            gradient = np.zeros((len(rows), len(LABELS)))
            np.add.at(gradient, inverse, np.repeat(chances / len(batch), lengths, axis=0))
            scale[rows] += gradient**2
            weights[rows] -= 0.1 * gradient / np.sqrt(scale[rows])
    return weights
