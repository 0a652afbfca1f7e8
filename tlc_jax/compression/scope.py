"""Which parameters compression touches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tlc_jax.selectors import flatten, select

Params = Mapping[str, Any]
EMBEDDING = r"(.*/)?embedding/(token|position)"
HEAD = r"classifier/.*"


def compressible(params: Params, embeddings: bool) -> dict[str, bool]:
    """Whether each parameter, by path, is a weight matrix that may be pruned and quantised.

    Kernels are; token and position embeddings are if `embeddings`: paper 1 compresses every parameter, and a position
    table is as much a matrix of learned rows as a token table. Biases, normalisation and the one or two rows of token
    types never are: they are under one percent of a model, a zero scale cuts a feature off altogether, and four bits do
    not hold them.
    """
    return select([(r".*/kernel", True), (EMBEDDING, embeddings)], flatten(params), default=False)


def prunable(params: Params, embeddings: bool) -> dict[str, bool]:
    """Whether each parameter, by path, may be pruned: what is compressible, but for the classification head.

    The head is not pretrained, so its weights are of another scale than those they would be ranked among, and few: at
    90 % a global threshold takes the whole of it, and what is left of the model answers the same class always.
    """
    scope = compressible(params, embeddings)
    return {path: chosen and not re.fullmatch(HEAD, path) for path, chosen in scope.items()}


def output_axis(path: str) -> int:
    """The axis of a matrix along which each index is a channel with a quantisation scale of its own.

    The last one of a kernel [..., in, out], the first of an embedding [rows, width]: each row is used by itself.
    """
    return -1 if path.endswith("kernel") else -2
