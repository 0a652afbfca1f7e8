"""What can be scored on the toy pairs without understanding them: majority, hypothesis alone, bag of words.

Any encoder worth its bytes must beat these clearly, and reports print them beside it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from tlc_jax.data.toy import LABELS, Pair, pairs

TRAIN_PAIRS = 12_000
_WORD = re.compile(r"\w+")


def baselines(seed: int = 0, epochs: int = 10) -> dict[str, float]:
    """Accuracy on the validation pairs of three baselines fitted to `TRAIN_PAIRS` of the training pairs.

    Returns:
      `majority`; `hypothesis_only` (bag of words of the hypothesis); `bag_of_words` (of premise and hypothesis, told
      apart, and of the words they share). The bags go through a multinomial logistic regression.
    """
    train = list(itertools.islice(pairs("train", seed), TRAIN_PAIRS))
    valid = list(pairs("valid", seed))
    targets, truth = (np.array([LABELS.index(pair.label) for pair in split]) for split in (train, valid))
    scores = {"majority": float(np.mean(truth == np.bincount(targets).argmax()))}
    for name, parts in {"hypothesis_only": ("h",), "bag_of_words": ("p", "h", "both")}.items():
        vocabulary: dict[str, int] = {}
        seen = [_bag(pair, parts, vocabulary, grow=True) for pair in train]
        weights = _fit(seen, targets, len(vocabulary), epochs)
        guesses = [weights[_bag(pair, parts, vocabulary, grow=False)].sum(0).argmax() for pair in valid]
        scores[name] = float(np.mean(np.array(guesses) == truth))
    return scores


def _bag(pair: Pair, parts: Sequence[str], vocabulary: dict[str, int], grow: bool) -> list[int]:
    """The feature numbers of a pair's words, each word once per part; 0 is the bias."""
    vocabulary.setdefault("", 0)
    words = {"p": set(_WORD.findall(pair.text.lower())), "h": set(_WORD.findall(pair.pair.lower()))}
    words["both"] = words["p"] & words["h"]
    bag = [0]
    for feature in (f"{part}:{word}" for part in parts for word in sorted(words[part])):
        number = vocabulary.setdefault(feature, len(vocabulary)) if grow else vocabulary.get(feature)
        if number is not None:
            bag.append(number)
    return bag


def _fit(bags: Sequence[list[int]], targets: np.ndarray, features: int, epochs: int) -> np.ndarray:
    """Weights [features, classes] of a logistic regression by AdaGrad over minibatches of 64."""
    classes = len(LABELS)
    weights = np.zeros((features, classes))
    scale = np.full((features, classes), 1e-8)
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
            gradient = np.zeros((len(rows), classes))
            np.add.at(gradient, inverse, np.repeat(chances / len(batch), lengths, axis=0))
            scale[rows] += gradient**2
            weights[rows] -= 0.1 * gradient / np.sqrt(scale[rows])
    return weights
