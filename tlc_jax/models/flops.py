"""Floating-point operations of models by formula.

One multiply-add counts as two operations. Element-wise work (layer norm, GELU, softmax, optimizer)
is left out: it is less than two percent of the total.
"""

from __future__ import annotations

from tlc_jax.config import Model

# The backward pass costs twice the forward pass: one for the gradients of inputs, one for weights.
_FORWARD_AND_BACKWARD = 3.0


def encoder_train_flops(
    model: Model, outputs: int, batch: int, length: int, positions: int = 1
) -> float:
    """Operations of a training step of an encoder with a head, without any recomputation.

    Args:
      model: settings of the architecture.
      outputs: logits of a position: the vocabulary, or the classes.
      batch: rows of a batch.
      length: tokens of a row.
      positions: positions of a row whose logits are computed.
    """
    head = 2.0 * batch * positions * (model.hidden**2 + model.hidden * outputs)
    return _FORWARD_AND_BACKWARD * (_layers(model, batch, length) + head)


def translator_train_flops(
    model: Model, vocab_size: int, batch: int, source: int, target: int
) -> float:
    """Operations of a training step of a translator on [batch, source] and [batch, target] tokens.

    Attention is counted in full, though causality needs half of the decoder's own.
    """
    filled, tokens = model.filled(), batch * target
    hidden, inner = filled.hidden, filled.heads * filled.head_size
    # Besides an encoder's products: query and output of the attention to the source, its keys and
    # values, and scores and weighted values of the longer attention.
    cross = 2.0 * tokens * 2 * hidden * inner + 2.0 * batch * source * 2 * hidden * inner
    decoder = _layers(model, batch, target) + model.layers * (cross + 4.0 * tokens * source * inner)
    logits = 2.0 * tokens * hidden * vocab_size
    return _FORWARD_AND_BACKWARD * (_layers(model, batch, source) + decoder + logits)


def _layers(model: Model, batch: int, length: int) -> float:
    """Operations of a forward pass of all encoder layers on [batch, length] tokens."""
    filled, tokens = model.filled(), batch * length
    hidden, inner = filled.hidden, filled.heads * filled.head_size
    # Query, key, value, output; up, down. Then scores and weighted values.
    projections = 2.0 * tokens * (4 * hidden * inner + 2 * hidden * filled.ffn)
    attention = 4.0 * tokens * length * inner
    return model.layers * (projections + attention)


def mfu(
    flops_per_step: float, seconds_per_step: float, peak: float | None, devices: int = 1
) -> float | None:
    """Model FLOPs utilization: the formula's FLOP/s as a share of `devices` times `peak` FLOP/s."""
    if peak is None or seconds_per_step <= 0:
        return None
    return flops_per_step / seconds_per_step / (peak * devices)
