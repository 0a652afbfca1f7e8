"""Times beam search (bench.task=decode), alone or beside that of other systems."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from tlc_jax.bench import decoding_peers as searches
from tlc_jax.bench import peers, throughput
from tlc_jax.config import Config, resolve, to_dict
from tlc_jax.config.resolve import require_translator
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement

CTRANSLATE2 = "CTranslate2, float32"


def check(config: Config) -> None:
    """Refuses a model that is not a translator's, and sentences that are too long for it.

    Raises:
      InputError: how to mend it.
    """
    require_translator(config)
    for name in ("source", "generated"):
        length = getattr(config.bench, name)
        if not 1 <= length <= config.model.max_length:
            raise InputError(
                f"bench.{name}={length} is not in 1 to model.max_length={config.model.max_length}"
            )


def measure(config: Config, placement: Placement, with_peers: bool) -> dict[str, Any]:
    """Tokens of best translations per second; with peers also theirs, and ratios."""
    tokens, rounds = config.decode.batch_size * config.bench.generated, config.bench.rounds
    found: dict[str, Any] = {"sentences": config.decode.batch_size, "beams": config.decode.beams}
    if with_peers:
        makers = _makers(config)
        seconds, failures = peers.time(config, makers, repeats=1)
        return {"decoding": found | peers.ratios([*makers], seconds, failures, CTRANSLATE2, tokens)}
    ours = searches.our_search(config, config.impl.matmul, placement)
    return {
        "decoding": found | throughput.rate(throughput.time_alone(_of(ours), rounds, 1), tokens)
    }


def _makers(config: Config) -> dict[str, peers.Maker]:
    """The sides that are compared."""
    platform, types = jax.default_backend(), peers.number_types(config)
    # A Config has read-only mappings, which cannot be pickled.
    make = functools.partial(_make, to_dict(config))
    ctranslate2 = functools.partial(make, searches.ctranslate2_search, platform)
    transformers = functools.partial(make, searches.transformers_search, platform)
    makers: dict[str, peers.Maker] = {}
    if "float32" in types:
        makers[CTRANSLATE2] = functools.partial(ctranslate2, "float32")
        makers["CTranslate2, int8"] = functools.partial(ctranslate2, "int8")
        makers["Hugging Face generate, float32"] = functools.partial(transformers, "float32")
    if "bfloat16" in types:
        if platform != "cpu":  # CPUs have none in CTranslate2
            makers["CTranslate2, float16"] = functools.partial(ctranslate2, "float16")
        makers["Hugging Face generate, bfloat16"] = functools.partial(transformers, "bfloat16")
    for text, matmul in peers.our_matmuls(config).items():
        makers[f"{peers.OURS}{text}"] = functools.partial(make, searches.our_search, matmul)
    return makers


def _make(
    settings: dict[str, Any], search_of: Callable[..., searches.Search], *arguments: str
) -> throughput.Variant:
    return _of(search_of(resolve(settings), *arguments))


def _of(search: searches.Search) -> throughput.Variant:
    def run(repeats: int) -> None:
        for _ in range(repeats):
            search()

    return run


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    found = result["decoding"]
    lines = [f"decoding          {found['sentences']} sentences at once, {found['beams']} beams"]
    if "peers" in found:
        return [*lines, *peers.describe(found)]
    return [*lines, f"                  {found['tokens_per_second']:,.0f} tokens/s"]
