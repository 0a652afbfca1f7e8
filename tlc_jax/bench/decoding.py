"""What `tlc bench` does with bench.task=decode: times beam search, alone or beside that of other systems."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable
from typing import Any

from tlc_jax.bench import decoding_peers as peers
from tlc_jax.bench.throughput import Variant, alternate, in_own_process, summary
from tlc_jax.config import Config, merge, resolve, to_dict
from tlc_jax.runs import session

CTRANSLATE2 = "CTranslate2, float32"
CTRANSLATE2_INT8 = "CTranslate2, int8"
Settings = dict[str, Any]


def measure(config: Config, with_peers: bool) -> dict[str, Any]:
    """Tokens of best translations per second; with peers also theirs, and ratios to CTranslate2 in float32 and int8.

    Peers, and what they are compared with, live in processes of their own: PyTorch's and CTranslate2's threads spin for
    a while after their work, and in one process they take half of the next one's speed.
    """
    tokens = config.decode.batch_size * config.bench.generated
    result: dict[str, Any] = {"sentences": config.decode.batch_size, "beams": config.decode.beams}
    if not with_peers:
        seconds = alternate({"tlc": _ours(to_dict(config))}, config.bench.rounds, 1)["tlc"]
        spread = [tokens / max(seconds), tokens / min(seconds)]
        return result | {
            "tokens_per_second": tokens / statistics.median(seconds),
            "tokens_per_second_spread": spread,
        }
    makers: dict[str, Callable[..., Variant]] = {
        CTRANSLATE2: functools.partial(_ctranslate2, compute_type="float32"),
        CTRANSLATE2_INT8: functools.partial(_ctranslate2, compute_type="int8"),
        "Hugging Face generate, float32": _transformers,
        "tlc, float32": functools.partial(_ours, matmul="float32"),
        "tlc, mix": functools.partial(_ours, matmul="mix"),
    }
    with contextlib.ExitStack() as stack:
        variants = {
            name: stack.enter_context(in_own_process(make, to_dict(config)))
            for name, make in makers.items()
        }
        seconds_of = alternate(variants, config.bench.rounds, 1)
    to_int8 = summary(seconds_of, tokens, CTRANSLATE2_INT8)
    rows = {
        name: row
        | {f"{key}_to_int8": to_int8[name][key] for key in ("ratio", "ratio_least", "ratio_most")}
        for name, row in summary(seconds_of, tokens, CTRANSLATE2).items()
    }
    return result | {"peers": rows}


# Each makes the unit of work from a config's settings, in the process that calls it.


def _ours(settings: Settings, matmul: str = "") -> Variant:
    config = resolve(merge(settings, {"impl": {"matmul": matmul}}) if matmul else settings)
    placement = session.open_devices(config)
    return _discard(peers.our_search(peers.Work.random(config), config.impl, placement))


def _transformers(settings: Settings) -> Variant:
    return _discard(peers.transformers_search(peers.Work.random(resolve(settings))))


def _ctranslate2(settings: Settings, compute_type: str) -> Variant:
    return _discard(peers.ctranslate2_search(peers.Work.random(resolve(settings)), compute_type))


def _discard(translate: peers.Translate) -> Variant:
    def run() -> None:
        translate()

    return run


def describe(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = [f"decoding          {result['sentences']} sentences at once, {result['beams']} beams"]
    if "tokens_per_second" in result:
        lines.append(f"                  {result['tokens_per_second']:,.0f} tokens/s")
    for name, row in result.get("peers", {}).items():
        lines.append(
            f"{name:32s}{row['per_second']:>8,.0f} tokens/s  {row['ratio']:.2f} times ({row['ratio_least']:.2f} to "
            f"{row['ratio_most']:.2f}) {CTRANSLATE2}; {row['ratio_to_int8']:.2f} times "
            f"({row['ratio_least_to_int8']:.2f} to {row['ratio_most_to_int8']:.2f}) {CTRANSLATE2_INT8}"
        )
    return lines
