"""The peers of decoding translate as ours does: same weights, same sentences, same search."""

from __future__ import annotations

import dataclasses

import pytest

from tlc_jax import config as configs
from tlc_jax.bench import decoding
from tlc_jax.bench import decoding_peers as peers
from tlc_jax.config import default_config, resolve
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement


@pytest.fixture(scope="module")
def config() -> configs.Config:
    tree = default_config()
    tree.model.layers, tree.model.hidden, tree.model.heads, tree.model.max_length = 2, 64, 4, 32
    tree.model.init = "fan_in"  # weights of 0.02 would make all continuations as likely
    tree.data.length, tree.tokenizer.vocab_size = 32, 300
    tree.decode.batch_size, tree.decode.beams = 8, 3
    tree.bench.source, tree.bench.generated = 9, 12
    return resolve(tree)


def test_all_translations_are_as_long_as_asked_for(config) -> None:
    assert peers.random_source(config).shape == (8, 9)
    found = peers.our_search(config, config.impl.matmul, Placement.parse("data=-1"))()
    assert [len(tokens) for tokens in found] == [12] * 8
    assert len({tuple(tokens) for tokens in found}) > 1


@pytest.mark.parametrize("name", ["source", "generated"])
def test_sentences_longer_than_the_model_are_refused(config, name) -> None:
    with pytest.raises(InputError, match=f"bench.{name}=33 is not in 1 to model.max_length=32"):
        bench = dataclasses.replace(config.bench, **{name: 33})
        decoding.check(dataclasses.replace(config, bench=bench))


@pytest.mark.peers
@pytest.mark.parametrize(
    "theirs",
    [
        lambda config: peers.transformers_search(config, "cpu", "float32"),
        lambda config: peers.ctranslate2_search(config, "cpu", "float32"),
    ],
    ids=["hf", "ct2"],
)
@pytest.mark.parametrize("share", ["none", "attention"])
def test_peers_translate_alike(config, share, theirs) -> None:
    model = dataclasses.replace(config.model, share=share)
    # Greedily: with beams, ours ranks hypotheses that end at the limit by how likely </s> is there,
    # and the others do not.
    greedy = dataclasses.replace(
        config, model=model, decode=dataclasses.replace(config.decode, beams=1)
    )
    ours = peers.our_search(greedy, config.impl.matmul, Placement.parse("data=-1"))()
    assert [tokens[:11] for tokens in theirs(greedy)()] == [tokens[:11] for tokens in ours]


@pytest.mark.peers
@pytest.mark.parametrize("beams", [1, 3])
def test_peers_generate_as_many_tokens(config, beams) -> None:
    config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, beams=beams))
    for search in (
        peers.transformers_search(config, "cpu", "float32"),
        peers.transformers_search(config, "cpu", "bfloat16"),
        peers.ctranslate2_search(config, "cpu", "float32"),
        peers.ctranslate2_search(config, "cpu", "int8"),
    ):
        assert [len(tokens) for tokens in search()] == [12] * 8
