"""Which sides are compared, and how the table treats one that fails."""

from __future__ import annotations

import dataclasses

import pytest

from tlc_jax.bench import peers
from tlc_jax.bench.throughput import Variant
from tlc_jax.config import Config, default_config, resolve


@pytest.fixture
def config() -> Config:
    return resolve(default_config())


def with_settings(config: Config, matmul: str, *types: str) -> Config:
    bench = dataclasses.replace(config.bench, peers=types, rounds=2)
    return dataclasses.replace(
        config, bench=bench, impl=dataclasses.replace(config.impl, matmul=matmul)
    )


def test_peers_follow_the_platform(config, monkeypatch) -> None:
    assert peers.number_types(config) == ("float32",)
    monkeypatch.setattr(peers.jax, "default_backend", lambda: "gpu")
    assert peers.number_types(config) == ("bfloat16",)
    assert peers.number_types(with_settings(config, "mix", "float32")) == ("float32",)


@pytest.mark.parametrize(
    "matmul, types, ours",
    [
        ("float32", ["float32"], ["float32 (as configured)", "mix"]),
        ("bfloat16", ["float32"], ["float32", "mix", "bfloat16 (as configured)"]),
        ("float32", ["bfloat16"], ["bfloat16", "float32 (as configured)"]),
        ("mix", ["float32", "bfloat16"], ["float32", "mix (as configured)", "bfloat16"]),
    ],
)
def test_ours_is_timed_as_configured_and_in_the_types_of_the_peers(
    config, matmul, types, ours
) -> None:
    assert list(peers.our_matmuls(with_settings(config, matmul, *types))) == ours


def working() -> Variant:
    return lambda repeats: None


def failing() -> Variant:
    raise ImportError("No module named 'triton'")


def test_a_peer_that_fails_is_a_row_that_says_why(config) -> None:
    makers = {"yardstick": failing, "other": working, "tlc, mix": working}
    seconds, failures = peers.time(with_settings(config, "mix"), makers, repeats=1)
    found = peers.ratios([*makers], seconds, failures, "yardstick", work=100.0)
    assert list(found["peers"]) == list(makers)
    assert found["peers"]["yardstick"] == {"failed": "ImportError: No module named 'triton'"}
    assert found["references"] == {"": "other"}
    assert found["peers"]["tlc, mix"]["ratio"] > 0
    *_, last = peers.describe(found)
    assert last == "yardstick: not measured: ImportError: No module named 'triton'"


def test_ratios_refer_to_the_yardstick_and_to_the_strongest_peer() -> None:
    def references(yardstick: str, **seconds: float) -> dict[str, str]:
        rounds = {name.replace("_", ", "): [value] for name, value in seconds.items()}
        return peers.ratios([*rounds], rounds, {}, yardstick, work=1.0)["references"]

    sides = {"first": 3.0, "second": 2.0, "tlc_mix": 1.0}
    assert references("first", **sides) == {"": "first", "_to_strongest": "second"}
    assert references("second", **sides) == {"": "second"}
    assert references("missing", **sides) == {"": "second"}
    assert references("first", tlc_mix=1.0) == {}
