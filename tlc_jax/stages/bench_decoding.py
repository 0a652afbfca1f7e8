"""What `tlc bench` does with bench.task=decode: times beam search, alone or beside that of other systems."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

from jax.sharding import Mesh

from tlc_jax.config import Config
from tlc_jax.evaluation import decoding_peers as peers
from tlc_jax.evaluation.throughput import Variant, alternate, summary

CTRANSLATE2 = "CTranslate2, float32"
CTRANSLATE2_INT8 = "CTranslate2, int8"


def measure(config: Config, mesh: Mesh, with_peers: bool) -> dict[str, Any]:
    """Tokens of best translations per second; with peers also theirs, and ratios to CTranslate2 in float32 and int8."""
    work = peers.Work.random(config)
    tokens = len(work.source_BxS) * work.generated
    ours = _discard(peers.our_search(work, config.impl, mesh))
    started = time.perf_counter()
    ours()
    compile_seconds = time.perf_counter() - started
    seconds = alternate({"tlc": ours}, config.bench.rounds, 1)["tlc"]
    result: dict[str, Any] = {
        "sentences": len(work.source_BxS),
        "beams": config.decode.beams,
        "first_seconds": compile_seconds,
        "tokens_per_second": tokens / statistics.median(seconds),
        "tokens_per_second_spread": [tokens / max(seconds), tokens / min(seconds)],
    }
    if with_peers:
        variants = {
            CTRANSLATE2: peers.ctranslate2_search(work, "float32"),
            CTRANSLATE2_INT8: peers.ctranslate2_search(work, "int8"),
            "Hugging Face generate, float32": peers.transformers_search(work),
            **{
                f"tlc, {matmul}": peers.our_search(work, dataclasses.replace(config.impl, matmul=matmul), mesh)
                for matmul in ("float32", "mix")
            },
        }
        seconds_of = alternate({name: _discard(run) for name, run in variants.items()}, config.bench.rounds, 1)
        to_int8 = summary(seconds_of, tokens, CTRANSLATE2_INT8)
        result["peers"] = {
            name: row | {f"{key}_to_int8": to_int8[name][key] for key in ("ratio", "ratio_least", "ratio_most")}
            for name, row in summary(seconds_of, tokens, CTRANSLATE2).items()
        }
    return result


def _discard(translate: peers.Translate) -> Variant:
    def run() -> None:
        translate()

    return run


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = [
        f"decoding          {result['tokens_per_second']:,.0f} tokens/s, {result['sentences']} sentences at once, "
        f"{result['beams']} beams",
        f"first batch       {result['first_seconds']:.1f} s",
    ]
    for name, row in result.get("peers", {}).items():
        lines.append(
            f"{name:32s}{row['per_second']:>8,.0f} tokens/s  {row['ratio']:.2f} times ({row['ratio_least']:.2f} to "
            f"{row['ratio_most']:.2f}) {CTRANSLATE2}; {row['ratio_to_int8']:.2f} times "
            f"({row['ratio_least_to_int8']:.2f} to {row['ratio_most_to_int8']:.2f}) {CTRANSLATE2_INT8}"
        )
    return lines
