"""Small networks whose weights are all noise, and rows with padding."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tlc_jax.config import Impl, Model
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY
from tlc_jax.models.network import Network, Params

LABELS = ("no", "perhaps", "yes")
V = 300
SEPARATOR = 7


def small_network(kind: str, **model: Any) -> Network:
    """Two layers, for rows of up to 24 tokens."""
    shape = Model(**{"layers": 2, "hidden": 64, "heads": 4, "max_length": 24, **model})
    return Network(kind, shape, V, len(LABELS) if kind == "classifier" else 0, Impl())


def random_params(network: Network) -> Params:
    """Biases and scales start at 0 and 1, where a mistake in their use would not show."""
    noise = np.random.default_rng(1)
    leaves = {
        path: noise.normal(path.endswith("scale"), 0.15, leaf.shape).astype(np.float32)
        for path, leaf in flatten(network.abstract()).items()
    }
    return unflatten(leaves)


def padded_rows() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and masks [3, 17] of rows of 17, 9 and 5 tokens."""
    tokens_BxL = np.random.default_rng(2).integers(8, V, (3, 17)).astype(np.int32)
    tokens_BxL[:, 3] = SEPARATOR
    mask_BxL = np.arange(17) < np.array([[17], [9], [5]])
    return np.where(mask_BxL, tokens_BxL, 0), mask_BxL


def logits_of(network: Network, params: Params) -> np.ndarray:
    """Of `padded_rows`: [3, classes], or [3, 17, V] with zeros where there is padding."""
    tokens_BxL, mask_BxL = padded_rows()
    method = {"classifier": "__call__", "mlm": "everywhere"}[network.kind]
    apply = jax.jit(lambda params: network.apply(params, tokens_BxL, mask_BxL, method=method))
    logits = np.asarray(apply(params))
    return logits if network.kind == "classifier" else real(logits)


def real(logits_BxLxV: np.ndarray) -> np.ndarray:
    """The same with zeros where `padded_rows` has padding: what is computed there means nothing."""
    return np.where(padded_rows()[1][:, :, None], logits_BxLxV, 0)


def greedy(
    encoder: Any,
    decoder: Any,
    tokens_BxS: np.ndarray,
    mask_BxS: np.ndarray,
    extra: int,
    longest: int,
) -> list[list[int]]:
    """Greedy translations by two sessions of onnxruntime, </s> included, as beam search ends them.

    docs/export.md has a shorter loop.
    """
    memory = outputs_of(encoder, {"tokens": tokens_BxS, "mask": mask_BxS})
    past = {name.replace("memory", "past"): values[:, :, :0] for name, values in memory.items()}
    limit_B = np.minimum(mask_BxS.sum(1) + extra, longest)
    token_Bx1 = np.full((len(tokens_BxS), 1), BOS)
    found: list[list[int]] = [[] for _ in tokens_BxS]
    while not all(row[-1:] == [EOS] for row in found):
        inputs = {"tokens": token_Bx1, "mask": mask_BxS, **memory, **past}
        outputs = outputs_of(decoder, inputs)
        logits_BxV = outputs.pop("logits").copy()
        logits_BxV[:, [id for id in range(FIRST_ORDINARY) if id != EOS]] = -np.inf
        past = {name.replace("present", "past"): values for name, values in outputs.items()}
        token_Bx1 = logits_BxV.argmax(1, keepdims=True)
        for row, limit, (token,) in zip(found, limit_B, token_Bx1.tolist(), strict=True):
            if row[-1:] != [EOS]:
                row.append(token if len(row) + 1 < limit else EOS)
    return found


def outputs_of(session: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a session by name."""
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))
