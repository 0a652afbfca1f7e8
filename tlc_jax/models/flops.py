"""Floating-point operations of models by formula.

Symbols: T tokens per step, S sequence length, L layers, H hidden, A attention's inner width (heads x head size), F
feed-forward width, V vocabulary, C classes, B sequences per step. One multiply-add counts as two operations; the
backward pass costs twice the forward pass. Element-wise work (layer norm, GELU, softmax, optimizer) is left out: it is
below two percent of the total.
"""

from __future__ import annotations

from tlc_jax.config import Model

_BACKWARD_AND_FORWARD = (
    3.0  # gradients with respect to inputs and to weights cost one forward pass each
)


def forward_flops_per_step(
    model: Model, vocab_size: int, batch: int, length: int, predicted_positions: int
) -> float:
    """Operations of one masked-language forward pass over [batch, length] tokens.

    `predicted_positions` is the number of positions per sequence whose logits are computed. With A = H and F = 4H this
    is a third of 6·T·12·L·H² + 12·L·S·H·T + 6·T_head·(H² + H·V).
    """
    head = model.hidden**2 + model.hidden * vocab_size
    return _layers_forward(model, batch, length) + 2.0 * batch * predicted_positions * head


def train_flops_per_step(
    model: Model, vocab_size: int, batch: int, length: int, predicted_positions: int
) -> float:
    """Operations of one masked-language training step: forward and backward, no recomputation counted."""
    forward = forward_flops_per_step(model, vocab_size, batch, length, predicted_positions)
    return _BACKWARD_AND_FORWARD * forward


def classifier_forward_flops_per_step(model: Model, classes: int, batch: int, length: int) -> float:
    """Operations of one forward pass of a classifier, whose head reads one token per sequence."""
    return _layers_forward(model, batch, length) + 2.0 * batch * (
        model.hidden**2 + model.hidden * classes
    )


def classifier_train_flops_per_step(model: Model, classes: int, batch: int, length: int) -> float:
    """Operations of one training step of a classifier: forward and backward."""
    return _BACKWARD_AND_FORWARD * classifier_forward_flops_per_step(model, classes, batch, length)


def translator_train_flops_per_step(
    model: Model, vocab_size: int, batch: int, source: int, target: int
) -> float:
    """Operations of one training step of a translator over [batch, source] and [batch, target] tokens.

    Attention is counted in full, though causality needs half of the decoder's own.
    """
    hidden, inner, ffn = _widths(model)
    # Decoder: query, key, value, output to itself; query and output to the source; up, down.
    projections = (
        2.0 * batch * target * (4 * hidden * inner + 2 * hidden * inner + 2 * hidden * ffn)
    )
    source_keys_and_values = 2.0 * batch * source * 2 * hidden * inner
    attention = 4.0 * batch * target * (target + source) * inner
    decoder = model.layers * (projections + source_keys_and_values + attention)
    logits = 2.0 * batch * target * hidden * vocab_size
    return _BACKWARD_AND_FORWARD * (_layers_forward(model, batch, source) + decoder + logits)


def _widths(model: Model) -> tuple[int, int, int]:
    """Of the residual stream, inside attention, and inside the feed-forward layer."""
    filled = model.filled()
    return filled.hidden, filled.heads * filled.head_size, filled.ffn


def _layers_forward(model: Model, batch: int, length: int) -> float:
    hidden, inner, ffn = _widths(model)
    tokens = batch * length
    projections = (
        2.0 * tokens * (4 * hidden * inner + 2 * hidden * ffn)
    )  # query, key, value, output; up, down
    attention = 4.0 * tokens * length * inner  # scores and weighted values
    return model.layers * (projections + attention)


def mfu(
    flops_per_step: float, seconds_per_step: float, peak: float | None, devices: int = 1
) -> float | None:
    """Model FLOPs utilization: the share of `devices` times `peak` FLOP/s that the formula's operations make up."""
    if peak is None or seconds_per_step <= 0:
        return None
    return flops_per_step / seconds_per_step / (peak * devices)
