"""Random parameter trees with the layout that the models have."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlc_jax.core.params import unflatten


def encoder_shapes(
    layers: int, hidden: int, vocab: int, positions: int = 16, classes: int = 3
) -> dict[str, tuple[int, ...]]:
    ffn = 4 * hidden
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/token": (vocab, hidden),
        "embedding/position": (positions, hidden),
    }
    for norm, stack in [("embedding/norm", ()), ("final_norm", ())] + [
        (f"blocks/{name}", (layers,)) for name in ("attention_norm", "ffn_norm")
    ]:
        shapes |= {f"{norm}/{leaf}": (*stack, hidden) for leaf in ("scale", "bias")}
    dense = {
        f"blocks/attention/{name}": (layers, hidden, hidden)
        for name in ("query", "key", "value", "output")
    }
    dense |= {"blocks/ffn/up": (layers, hidden, ffn), "blocks/ffn/down": (layers, ffn, hidden)}
    dense |= {"classifier/dense": (hidden, hidden), "classifier/output": (hidden, classes)}
    for name, shape in dense.items():
        shapes |= {f"{name}/kernel": shape, f"{name}/bias": (*shape[:-2], shape[-1])}
    return shapes


def classifier(
    layers: int = 2, hidden: int = 8, vocab: int = 32, seed: int = 0, **more: int
) -> dict[str, Any]:
    """A classifier's tree of normal float32 values.

    Layers differ in size, so that global thresholds differ from local ones.
    """
    rng = np.random.default_rng(seed)
    shapes = encoder_shapes(layers, hidden, vocab, **more)
    return unflatten({path: _values(rng, shape) for path, shape in sorted(shapes.items())})


def few_leaves() -> dict[str, Any]:
    """One leaf of each kind, where compiling for a whole tree would take long."""
    tree = classifier()
    return {
        "blocks": {"ffn": {"up": tree["blocks"]["ffn"]["up"]}},
        "embedding": {"token": tree["embedding"]["token"]},
        "final_norm": {"scale": tree["final_norm"]["scale"]},
    }


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    scale = rng.uniform(0.5, 2.0, (*shape[:1], *(1 for _ in shape[1:])))
    return (0.02 * scale * rng.standard_normal(shape)).astype(np.float32)
