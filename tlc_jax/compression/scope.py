"""Parameters that compression touches, by path, and which of their axes are inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tlc_jax.compression.recipe import ANY
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, select

Params = Mapping[str, Any]
MATRIX = re.compile(r"(.*/)?kernel")
EMBEDDING = re.compile(r"(.*/)?embedding/(token|position)")
HEAD = re.compile(r"classifier/.*")


def compressible(params: Params, embeddings: bool, only: str = ANY) -> dict[str, bool]:
    """Whether each parameter, by path, is a weight matrix that may be pruned and quantized.

    Kernels are; token and position embeddings are if `embeddings`: paper 1 compresses every
    parameter, and a position table is as much a matrix of learned rows as a token table. Biases,
    normalization and the one or two rows of token types never are: they are under one percent of a
    model, a zero scale cuts a feature off altogether, and four bits do not represent them well
    enough.

    Raises:
      InputError: `only` selects no such matrix.
    """
    flat = flatten(params)
    scope = {
        path: bool(MATRIX.fullmatch(path) or (embeddings and EMBEDDING.fullmatch(path)))
        for path in flat
    }
    if only == ANY:
        return scope
    chosen = select([(only, True)], flat, default=False)
    if not any(scope[path] and chosen[path] for path in flat):
        named = ", ".join([path for path in flat if chosen[path]][:3])
        raise InputError(f"recipe: only={only} selects no weight matrix, but {named}")
    return {path: scope[path] and chosen[path] for path in flat}


def prunable(params: Params, embeddings: bool, only: str = ANY) -> dict[str, bool]:
    """Whether each parameter, by path, may be pruned: as `compressible`, without the classification
    head.

    The head is not pretrained, so its few weights have another scale than those they would be
    ranked among: at 90 % a global threshold takes all of it, and the rest of the model then always
    answers the same class.
    """
    scope = compressible(params, embeddings, only)
    return {path: chosen and not HEAD.fullmatch(path) for path, chosen in scope.items()}


def output_axis(path: str) -> int:
    """The axis of a matrix along which each index is a channel with a quantization scale of its
    own.

    The last axis of a kernel [..., in, out], the first of an embedding [rows, width]: each row is
    used by itself.
    """
    return -1 if path.endswith("kernel") else -2


def input_axis(path: str) -> int:
    """The other axis: along it lie the weights of one channel."""
    return -3 - output_axis(path)
