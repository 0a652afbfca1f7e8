"""Times beam search (bench.task=decode), alone or beside that of other systems."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from typing import Any

from tlc_jax.bench import decoding_peers as peers
from tlc_jax.bench import throughput
from tlc_jax.bench.pretraining_peers import require_transformers
from tlc_jax.config import Config, resolve, to_dict
from tlc_jax.config.resolve import require_own_architecture, require_translator
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement

CTRANSLATE2 = "CTranslate2, float32"
CTRANSLATE2_INT8 = "CTranslate2, int8"
_REFERENCES = {"": CTRANSLATE2, "_to_int8": CTRANSLATE2_INT8}
# The search of each variant, and its arguments beside the config.
_SEARCHES: dict[str, tuple[Callable[..., throughput.Variant], *tuple[str, ...]]] = {
    CTRANSLATE2: (peers.ctranslate2_search, "float32"),
    CTRANSLATE2_INT8: (peers.ctranslate2_search, "int8"),
    "Hugging Face generate, float32": (peers.transformers_search,),
    "tlc, float32": (peers.our_search, "float32"),
    "tlc, mix": (peers.our_search, "mix"),
}


def check(config: Config, with_peers: bool) -> None:
    """Refuses what cannot be timed.

    Raises:
      InputError: the model is not a translator's or its sentences are too long; or for --peers, a
        package is missing or the model differs from those of the peers.
    """
    require_translator(config)
    if with_peers:
        require_own_architecture(config)
        require_transformers()
        if importlib.util.find_spec("ctranslate2") is None:
            raise InputError("--peers needs CTranslate2: pip install 'tlc_jax[peers]'")
    for name in ("source", "generated"):
        length = getattr(config.bench, name)
        if not 1 <= length <= config.model.max_length:
            raise InputError(
                f"bench.{name}={length} is not in 1 to model.max_length={config.model.max_length}"
            )


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """Tokens of best translations per second; with peers also theirs, and ratios to CTranslate2."""
    tokens, rounds = config.decode.batch_size * config.bench.generated, config.bench.rounds
    found: dict[str, Any] = {"sentences": config.decode.batch_size, "beams": config.decode.beams}
    if not with_peers:
        search = peers.our_search(config, config.impl.matmul, placement)
        alone = throughput.time_alone(search, rounds, 1)
        return {"decoding": found | throughput.rate(alone, tokens)}
    with contextlib.ExitStack() as stack:
        variants = {}
        for name, (search_of, *arguments) in _SEARCHES.items():
            # A Config has read-only mappings, which cannot be pickled.
            variant = throughput.in_own_process(_make, to_dict(config), search_of, *arguments)
            variants[name] = stack.enter_context(variant)
        seconds = throughput.alternate(variants, rounds, 1)
    return {"decoding": found | {"peers": throughput.summary(seconds, tokens, _REFERENCES)}}


def _make(
    settings: dict[str, Any], search_of: Callable[..., throughput.Variant], *arguments: str
) -> throughput.Variant:
    return search_of(resolve(settings), *arguments)


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    found = result["decoding"]
    lines = [f"decoding          {found['sentences']} sentences at once, {found['beams']} beams"]
    if "peers" in found:
        return [*lines, throughput.summary_table(found["peers"], _REFERENCES)]
    return [*lines, f"                  {found['tokens_per_second']:,.0f} tokens/s"]
