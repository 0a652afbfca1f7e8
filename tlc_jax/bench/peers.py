"""What the comparisons of training and of decoding share: who takes part, where, and the ratios.

Every side has a process of its own. Peers follow the platform: by default they compute in float32
on CPUs and in bfloat16 on accelerators, and PyTorch uses the device that JAX uses.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from tlc_jax.bench import throughput
from tlc_jax.config import Config
from tlc_jax.config.resolve import require_own_architecture
from tlc_jax.core.errors import InputError

OURS, CONFIGURED = "tlc, ", " (as configured)"
"""The start of the names of our variants, and the end of the configured one's."""

Maker = Callable[[], throughput.Variant]
"""Makes a variant; it is pickled, and called in the variant's process."""


def check(config: Config) -> None:
    """Refuses --peers where a package is missing, except CTranslate2, or the model differs.

    Raises:
      InputError: how to mend it.
    """
    require_own_architecture(config)
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        raise InputError("--peers needs PyTorch and transformers: pip install 'tlc_jax[peers]'")


def prepare_torch(platform: str) -> str:
    """Makes PyTorch's float32 fast and transformers quiet; returns the device for a platform."""
    import torch
    import transformers

    # By default float32 products run at half of oneDNN's rate on CPUs. "medium" selects oneDNN,
    # which still computes in float32 there, so PyTorch is compared at its best. On GPUs it allows
    # TensorFloat-32, as XLA does.
    torch.set_float32_matmul_precision("medium")
    transformers.logging.set_verbosity_error()
    return torch_device(platform)


def torch_device(platform: str) -> str:
    """The name that PyTorch and CTranslate2 have for the devices of JAX's platform."""
    return "cpu" if platform == "cpu" else "cuda"


def number_types(config: Config) -> tuple[str, ...]:
    """The types that peers compute in: float32, bfloat16 or both."""
    return config.bench.peers or (("float32",) if jax.default_backend() == "cpu" else ("bfloat16",))


def our_matmuls(config: Config) -> dict[str, str]:
    """The values of impl.matmul that are timed, by a text for them: those of `number_types`."""
    of_type = {"float32": ("float32", "mix"), "bfloat16": ("bfloat16",)}
    values = [matmul for kind in number_types(config) for matmul in of_type[kind]]
    configured = config.impl.matmul
    return {
        matmul + (CONFIGURED if matmul == configured else ""): matmul
        for matmul in dict.fromkeys([*values, configured])
    }


def in_turn() -> bool:
    """Whether sides follow each other: an accelerator's memory does not hold several."""
    return jax.default_backend() != "cpu"


def time(
    config: Config, makers: Mapping[str, Maker], repeats: int
) -> tuple[throughput.Seconds, dict[str, str]]:
    """Times sides in processes of their own.

    Args:
      config: number of rounds.
      makers: the sides by name.
      repeats: units of work per round.

    Returns:
      Seconds per unit of work of every side in every round, and why the other sides failed.
    """
    return throughput.time_in_own_processes(makers, config.bench.rounds, repeats, in_turn())


def ratios(
    names: Sequence[str],
    seconds: throughput.Seconds,
    failures: Mapping[str, str],
    yardstick: str,
    work: float,
) -> dict[str, Any]:
    """The speeds of sides and how they compare. A side that failed is a row that says why.

    Args:
      names: all sides in the order of the rows. Names of ours start with `OURS`.
      seconds: seconds per unit of work of the sides that were measured, by round.
      failures: why the others failed.
      yardstick: the side that ratios refer to, if it was measured.
      work: size of a unit of work, such as its tokens.

    Returns:
      "peers": the rows of `throughput.summary`, and {"failed": reason} of sides that failed.
      "references": suffix of the names of ratios -> name of the side that they refer to: the
        yardstick, and `_to_strongest` the fastest side that is not ours, if that is another one.
    """
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    theirs = [name for name in medians if not name.startswith(OURS)]
    references = {"": yardstick} if yardstick in medians else {}
    if theirs:
        strongest = min(theirs, key=medians.__getitem__)
        if strongest not in references.values():
            references["_to_strongest" if references else ""] = strongest
    rows = throughput.summary(seconds, work, references)
    return {
        "peers": {name: rows.get(name) or {"failed": failures[name]} for name in names},
        "references": references,
    }


def describe(found: Mapping[str, Any]) -> list[str]:
    """The table of the sides that were measured, and a line for each of the others."""
    rows, failed = {}, []
    for name, row in found["peers"].items():
        if "failed" in row:
            failed.append(f"{name}: not measured: {row['failed']}")
        else:
            rows[name] = row
    return [throughput.summary_table(rows, found["references"]), *failed]
