"""Beam search against cases by hand, against exhaustive search, and against plain decoding."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tlc_jax import config as configs
from tlc_jax.data.tokenizer import BOS, EOS, PAD
from tlc_jax.decoding.beam_search import beam_search, length_penalty, top_k
from tlc_jax.models.network import translator
from tlc_jax.tasks.translation import search

A, B, C = 5, 6, 7
V = 8


def markov(rows: dict[int, dict[int, float]]):
    """A model whose next token depends on the last one alone: {last: {next: probability}}."""
    table = np.full((V, V), -np.inf, np.float32)
    for last, nexts in rows.items():
        for token, probability in nexts.items():
            table[last, token] = math.log(probability)
    table = jnp.asarray(table)
    return lambda cache, tokens_BxK, ancestors, t: (table[tokens_BxK], cache)


def decode(step, beams, length, alpha=0.0, limits=None):
    limits = jnp.array([length] if limits is None else limits)
    found = jax.jit(lambda: beam_search(step, (), limits, beams, length, alpha))()
    return jax.tree.map(np.asarray, found)


def sentence(row) -> list[int]:
    return [int(token) for token in row if token != PAD]


# Greedy takes A (0.6), whose best ending has 0.6 * 0.4; B ends with 0.4 * 0.9 and is better.
GARDEN_PATH = markov({BOS: {A: 0.6, B: 0.4}, A: {EOS: 0.4, A: 0.3, B: 0.3}, B: {EOS: 0.9, A: 0.1}})


def test_a_beam_leaves_the_garden_path() -> None:
    greedy = decode(GARDEN_PATH, beams=1, length=4)
    assert sentence(greedy.tokens_BxKxT[0, 0]) == [A, EOS]
    beam = decode(GARDEN_PATH, beams=2, length=4)
    assert [sentence(row) for row in beam.tokens_BxKxT[0]] == [[B, EOS], [A, EOS]]
    np.testing.assert_allclose(beam.scores_BxK[0], np.log([0.36, 0.24]), rtol=1e-5)
    assert beam.lengths_BxK.tolist() == [[2, 2]]


def test_the_length_penalty_decides_between_short_and_long() -> None:
    # [A </s>] has probability 0.3 and [B C </s>] 0.27; at alpha 1 the scores are
    # log 0.3 / (7/6) = -1.03 and log 0.27 / (8/6) = -0.98.
    step = markov(
        {BOS: {A: 0.73, B: 0.27}, A: {EOS: 30 / 73, A: 43 / 73}, B: {C: 1.0}, C: {EOS: 1.0}}
    )
    plain = decode(step, beams=2, length=3)
    assert sentence(plain.tokens_BxKxT[0, 0]) == [A, EOS]
    penalized = decode(step, beams=2, length=3, alpha=1.0)
    assert sentence(penalized.tokens_BxKxT[0, 0]) == [B, C, EOS]
    np.testing.assert_allclose(penalized.scores_BxK[0], [-0.98199, -1.03198], rtol=1e-4)


def test_the_penalty_is_that_of_gnmt() -> None:
    assert float(length_penalty(jnp.float32(1.0), 0.6)) == 1.0
    assert float(length_penalty(jnp.float32(7.0), 1.0)) == 2.0
    assert float(length_penalty(jnp.float32(7.0), 0.0)) == 1.0


def test_at_its_limit_a_sentence_ends() -> None:
    never = markov({BOS: {A: 0.9, EOS: 0.1}, A: {A: 0.9, EOS: 0.1}})
    found = decode(never, beams=1, length=6, limits=[3, 5])
    assert [sentence(rows[0]) for rows in found.tokens_BxKxT] == [[A, A, EOS], [A, A, A, A, EOS]]


def test_with_room_for_all_the_search_is_exhaustive() -> None:
    rng = np.random.default_rng(0)
    length, alpha = 4, 0.7
    # The next token depends on position and last token, so that no two hypotheses are alike.
    table_TxVxV = rng.normal(size=(length, V, V)).astype(np.float32) * 2
    table_TxVxV[:, :, [PAD, 1, BOS, 4]] = -np.inf
    table = jax.nn.log_softmax(jnp.asarray(table_TxVxV))
    found = decode(
        lambda cache, tokens, _, t: (table[t, tokens], cache), beams=40, length=length, alpha=alpha
    )
    log_p = np.asarray(table)
    every = {}
    for size in range(length):
        for words in itertools.product((A, B, C), repeat=size):
            tokens = [*words, EOS]
            total = sum(
                log_p[t, last, token]
                for t, (last, token) in enumerate(itertools.pairwise([BOS, *tokens]))
            )
            every[tuple(tokens)] = total / ((5 + len(tokens)) / 6) ** alpha
    ranked = sorted(every, key=every.get, reverse=True)
    assert len(ranked) == 40
    assert [tuple(sentence(row)) for row in found.tokens_BxKxT[0]] == ranked
    np.testing.assert_allclose(found.scores_BxK[0], [every[tokens] for tokens in ranked], rtol=1e-4)


def to_the_last_position(log_p_VxV, beams: int, length: int, alpha: float) -> list[float]:
    """Scores of a beam search without early stopping, written out with lists."""
    alive, finished = [(0.0, BOS)], []
    for t in range(length):
        ended = [total + log_p_VxV[last, EOS] for total, last in alive]
        grown = sorted(
            ((p + log_p_VxV[last, w], w) for p, last in alive for w in (A, B, C)), reverse=True
        )[:beams]
        worst = sorted([*ended, *(total for total, _ in grown)], reverse=True)[:beams][-1]
        finished += [p / ((6 + t) / 6) ** alpha for p in ended if p >= worst or t + 1 == length]
        alive = grown
    return sorted(finished, reverse=True)[:beams]


def test_stopping_early_loses_nothing() -> None:
    # Many models at once: model b for sentence b.
    logits = np.random.default_rng(1).normal(size=(60, V, V)).astype(np.float32)
    logits[:, :, EOS] -= 1.5
    logits[:, :, [PAD, 1, BOS, 4]] = -np.inf
    table = jax.nn.log_softmax(jnp.asarray(logits))
    step = lambda cache, tokens_BxK, _, t: (table[np.arange(60)[:, None], tokens_BxK], cache)  # noqa: E731
    found = decode(step, beams=3, length=25, alpha=1.0, limits=[25] * 60)
    expected = [to_the_last_position(each, 3, 25, 1.0) for each in np.asarray(table)]
    np.testing.assert_allclose(found.scores_BxK, expected, rtol=1e-4)


def test_it_stops_as_soon_as_all_sentences_are_done() -> None:
    steps = []

    def step(cache, tokens_BxK, ancestors, t):
        jax.debug.callback(lambda t: steps.append(int(t)), t)
        return GARDEN_PATH(cache, tokens_BxK, ancestors, t)

    decode(step, beams=2, length=50)
    jax.effects_barrier()
    assert max(steps) < 10


@pytest.mark.parametrize(("size", "k"), [(10, 3), (5000, 4), (4096, 1), (1031, 4)])
def test_top_k_is_that_of_jax(size, k) -> None:
    x = jnp.asarray(np.random.default_rng(size).normal(size=(2, 3, size)).astype(np.float32))
    values, places = top_k(x, k)
    expected_values, expected_places = jax.lax.top_k(x, k)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(places, expected_places)


VOCAB = 40
MODEL = configs.Model(layers=2, hidden=64, heads=2, max_length=24, dropout=0.0, init="fan_in")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def network(request):
    return translator(MODEL, VOCAB, configs.Impl(matmul=request.param))


@pytest.fixture(scope="module")
def params(network):
    return network.init(jax.random.key(3))


SOURCE = np.random.default_rng(0).integers(5, VOCAB, (3, 9)).astype(np.int32)
SOURCE[1, 6:] = PAD
SOURCE[:, 8] = np.where(SOURCE[:, 8] == PAD, PAD, EOS)


def forced(network):
    """Logits of every position of whole prefixes; causality hides what follows a position."""
    return jax.jit(
        lambda params, source, inputs: network.apply(params, source, source != PAD, inputs)
    )


def test_the_cache_gives_the_logits_of_the_whole_prefix(network, params) -> None:
    rng = np.random.default_rng(1)
    beams, length = 3, 6
    whole = forced(network)
    step = jax.jit(lambda params, *state: network.apply(params, method="stepper")(*state))
    cache = network.apply(params, SOURCE, SOURCE != PAD, beams, length, method="start")
    ancestors = np.zeros((3, beams, length), np.int32)
    prefixes = np.full((3, beams, length), PAD, np.int32)
    prefixes[:, :, 0] = BOS
    for t in range(length):
        ancestors[:, :, t] = np.arange(beams)
        logits, cache = step(params, cache, prefixes[:, :, t], ancestors, np.int32(t))
        for k in range(beams):
            expected = whole(params, SOURCE, prefixes[:, k])[:, t]
            tolerance = 0.15 if network.impl.matmul == "bfloat16" else 2e-4
            np.testing.assert_allclose(logits[:, k], expected, atol=tolerance, err_msg=f"{t} {k}")
        # Hypotheses change places, as they do in a search.
        parents = rng.integers(0, beams, (3, beams))[:, :, None]
        ancestors = np.take_along_axis(ancestors, parents, axis=1)
        prefixes = np.take_along_axis(prefixes, parents, axis=1)
        if t + 1 < length:
            prefixes[:, :, t + 1] = rng.integers(5, VOCAB, (3, beams))


def test_one_beam_is_greedy() -> None:
    network = translator(MODEL, VOCAB, configs.Impl())
    params = network.init(jax.random.key(3))
    settings = configs.Decode(beams=1, extra=8)
    found = jax.jit(functools.partial(search, network, settings))(params, jnp.asarray(SOURCE))
    whole = forced(network)
    limits = np.sum(SOURCE != PAD, axis=1) + 8
    inputs = np.full((3, 18), PAD, np.int32)
    inputs[:, 0] = BOS
    for t in range(17):
        logits = np.array(whole(params, SOURCE, inputs)[:, t])
        logits[:, [PAD, 1, BOS, 4]] = -np.inf
        ended = (inputs[:, t] == EOS) | (inputs[:, t] == PAD)
        inputs[:, t + 1] = np.where(ended, PAD, np.where(t + 1 >= limits, EOS, logits.argmax(-1)))
    for row in range(3):
        assert sentence(found.tokens_BxKxT[row, 0]) == sentence(inputs[row, 1:])


def test_padding_and_neighbors_change_nothing(network, params) -> None:
    settings = configs.Decode(beams=3, extra=4)
    run = jax.jit(functools.partial(search, network, settings))
    together = run(params, jnp.asarray(SOURCE))
    alone = run(params, jnp.asarray(SOURCE[1:2, :6]))
    np.testing.assert_allclose(
        together.scores_BxK[1],
        alone.scores_BxK[0],
        atol=0.1 if network.impl.matmul == "bfloat16" else 1e-4,
    )
