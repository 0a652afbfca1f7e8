from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import trees
from tests.helpers.plugins import isolated
from tlc_jax.compression import prune as pruning
from tlc_jax.compression.artifact import Compressed, measure
from tlc_jax.compression.iterative import schedule
from tlc_jax.compression.prune import (
    apply_masks,
    clear_moments,
    mask_updates,
    prunable_leaves,
    pruning_masks,
)
from tlc_jax.compression.recipe import Prune
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten


def reference_masks(params: Any, prune: Prune) -> dict[str, np.ndarray]:
    """The same by sorting: a stable sort breaks ties by position, in the order of path, layer, row
    and column.
    """
    flat = {path: np.asarray(leaf) for path, leaf in prunable_leaves(params, prune).items()}

    def keep(weights: np.ndarray) -> np.ndarray:
        mask = np.abs(weights) >= np.finfo(np.float32).tiny  # subnormal numbers count as zero
        mask[np.argsort(np.abs(weights), kind="stable")[: round(prune.sparsity * weights.size)]] = (
            False
        )
        return mask

    if prune.scope == "global":
        everything = keep(np.concatenate([leaf.ravel() for leaf in flat.values()]))
        parts = np.split(everything, np.cumsum([leaf.size for leaf in flat.values()])[:-1])
        return {
            path: part.reshape(leaf.shape)
            for (path, leaf), part in zip(flat.items(), parts, strict=True)
        }
    if prune.scope == "layer":
        return reference_layers(flat, keep)
    stacks = {path: leaf if leaf.ndim == 3 else leaf[None] for path, leaf in flat.items()}
    masks = {
        path: np.stack([keep(matrix.ravel()) for matrix in stack]) for path, stack in stacks.items()
    }
    return {path: mask.reshape(flat[path].shape) for path, mask in masks.items()}


def reference_layers(flat: dict[str, np.ndarray], keep: Any) -> dict[str, np.ndarray]:
    masks = {
        path: keep(leaf.ravel()).reshape(leaf.shape)
        for path, leaf in flat.items()
        if leaf.ndim == 2
    }
    stacked = {path: np.zeros(leaf.shape, bool) for path, leaf in flat.items() if leaf.ndim == 3}
    for layer in range(2):
        together = keep(np.concatenate([flat[path][layer].ravel() for path in stacked]))
        ends = np.cumsum([flat[path][layer].size for path in stacked])[:-1]
        for path, part in zip(stacked, np.split(together, ends), strict=True):
            stacked[path][layer] = part.reshape(flat[path].shape[1:])
    return masks | stacked


def assert_same_masks(masks: Any, expected: dict[str, np.ndarray]) -> None:
    flat = flatten(masks)
    assert flat.keys() == expected.keys()
    for path, mask in flat.items():
        np.testing.assert_array_equal(np.asarray(mask), expected[path], err_msg=path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.15, 0.75, 0.999])
@pytest.mark.parametrize("scope", ["global", "tensor", "layer"])
@pytest.mark.parametrize("embeddings", [True, False])
def test_thresholds_equal_sorting(share: float, scope: str, embeddings: bool) -> None:
    params = trees.classifier()
    prune = Prune(share, scope, embeddings=embeddings)
    assert_same_masks(pruning_masks(params, prune), reference_masks(params, prune))


def along_inputs(path: str, leaf: np.ndarray) -> np.ndarray:
    """The leaf with the weights of an output on the last axis."""
    return leaf if path.startswith("embedding") else np.swapaxes(leaf, -1, -2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "prune", [Prune(0.3, "row"), Prune(0.5, block=4), Prune(0.25, block=4), Prune(0.5, block=2)]
)
def test_rows_and_blocks_lose_their_own_smallest(prune: Prune, seed: int) -> None:
    params = jax.tree.map(lambda leaf: np.round(leaf, 2), trees.classifier(seed=seed))  # many ties
    masks = flatten(pruning_masks(params, prune))
    assert masks.keys() == prunable_leaves(params, prune).keys()
    for path, mask in masks.items():
        rows = along_inputs(path, flatten(params)[path])
        size = prune.block or rows.shape[-1]
        expected = np.abs(rows.reshape(-1, size)) > 0
        order = np.argsort(np.abs(rows.reshape(-1, size)), axis=1, kind="stable")
        np.put_along_axis(expected, order[:, : round(prune.sparsity * size)], False, axis=1)
        np.testing.assert_array_equal(
            along_inputs(path, np.asarray(mask)).reshape(-1, size), expected, err_msg=path
        )


@pytest.fixture(scope="module", autouse=True)
def scores():
    with isolated():
        plugins.register("score", "shifted", lambda path, w: w + 1)
        plugins.register("score", "none", lambda path, w: jnp.zeros(w.shape))
        yield


def some_zeros() -> Any:
    params, rng = trees.classifier(), np.random.default_rng(0)
    return jax.tree.map(lambda w: np.where(rng.random(w.shape) < 0.2, np.float32(0), w), params)


@pytest.mark.parametrize(
    "prune", [Prune(0.6), Prune(0.6, "layer"), Prune(0.6, "row"), Prune(0.5, block=4)]
)
def test_a_score_ranks_instead_of_the_magnitude(prune: Prune) -> None:
    params = some_zeros()
    shifted = jax.tree.map(lambda w: np.where(w == 0, w, w + 1), params)
    scored = dataclasses.replace(prune, score="shifted")
    expected = flatten(pruning_masks(shifted, prune))
    assert_same_masks(pruning_masks(params, scored), jax.tree.map(np.asarray, expected))


@pytest.mark.parametrize("scope", ["global", "row"])
def test_a_weight_whose_score_is_zero_does_not_count_as_pruned(scope: str) -> None:
    params = some_zeros()
    prune = Prune(0.5, scope, score="none")
    masks = flatten(pruning_masks(params, prune))
    leaves = prunable_leaves(params, prune)
    for path, mask in masks.items():
        assert not (np.asarray(mask) & (leaves[path] == 0)).any()
    kept = sum(int(np.sum(mask)) for mask in masks.values())
    total = sum(leaf.size for leaf in leaves.values())
    # Of rows some may have more zeros than weights to lose.
    assert 0.45 * total < kept <= 0.5 * total + 0.5


def test_selectors_narrow_the_scope() -> None:
    masks = flatten(pruning_masks(trees.classifier(), Prune(0.5, only="blocks/ffn/.*")))
    assert masks.keys() == {"blocks/ffn/up/kernel", "blocks/ffn/down/kernel"}
    for only in ("blocks/ffn/up/bias", "blocks/tails/.*"):
        with pytest.raises(InputError, match="selects no weight matrix|matches no parameter"):
            pruning_masks(trees.classifier(), Prune(0.5, only=only))


def test_blocks_that_do_not_divide_are_refused_with_the_path() -> None:
    with pytest.raises(
        InputError, match="blocks/attention/key/kernel has 8 inputs, which blocks of 3"
    ):
        pruning_masks(trees.classifier(), Prune(1 - 2 / 3, block=3, only="blocks/attention/key/.*"))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.99), st.sampled_from(["global", "tensor"]))
def test_ties_and_zeros_fall_by_position(seed: int, share: float, scope: str) -> None:
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: rng.choice(np.float32([0, -0.0, 1, -1, 2, 3e-45, np.inf]), leaf.shape),
        trees.classifier(hidden=4),
    )
    prune = Prune(share, scope)
    assert_same_masks(pruning_masks(params, prune), reference_masks(params, prune))


@pytest.mark.parametrize(
    "prune",
    [
        Prune(0.6),
        Prune(0.6, "tensor"),
        Prune(0.6, "layer"),
        Prune(0.6, "row"),
        Prune(0.5, block=4),
        Prune(0.6, score="shifted"),
    ],
    ids=["global", "tensor", "layer", "row", "2:4", "score"],
)
def test_sharded_masks_are_the_same_and_sharded_alike(prune: Prune) -> None:
    assert jax.device_count() == 8, "tests run on eight fake devices"
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    params = trees.classifier(classes=8)
    scope = prunable_leaves(params, Prune(0.5))

    def place(path: str, leaf: np.ndarray) -> jax.Array:
        names = [None] * (leaf.ndim - 2) + ["fsdp", "data"] if path in scope else []
        spec = jax.sharding.PartitionSpec(*names)
        return jax.device_put(
            np.round(leaf, 2), jax.sharding.NamedSharding(mesh, spec)
        )  # rounded: many ties

    sharded = unflatten({path: place(path, leaf) for path, leaf in flatten(params).items()})
    masks = pruning_masks(sharded, prune)
    expected = pruning_masks(jax.device_get(sharded), prune)
    assert_same_masks(masks, {path: np.asarray(mask) for path, mask in flatten(expected).items()})
    for path, mask in flatten(masks).items():
        leaf = flatten(sharded)[path]
        assert mask.sharding.is_equivalent_to(leaf.sharding, leaf.ndim), path


def test_rounds_only_ever_remove_weights() -> None:
    params = trees.few_leaves()
    before = None
    for target in schedule(0.9, 0.15):
        masks = pruning_masks(params, Prune(0.9), target)
        assert sizes(params, masks)["sparsity"] == pytest.approx(target, abs=2e-3)
        if before is not None:
            assert all(
                jax.tree.leaves(
                    jax.tree.map(lambda old, new: bool((old | ~new).all()), before, masks)
                )
            )
        params, before = apply_masks(params, masks), masks


def test_only_matrices_are_in_scope() -> None:
    pruned = set(prunable_leaves(trees.classifier(), Prune(0.5)))
    assert {"embedding/token", "embedding/position", "blocks/ffn/up/kernel"} <= pruned
    assert not any(
        path.startswith("classifier/") for path in pruned
    )  # a threshold for all would take all of it
    assert not any(path.endswith(("bias", "scale")) for path in pruned)
    without = prunable_leaves(trees.classifier(), Prune(0.5, embeddings=False))
    assert pruned - without.keys() == {
        "embedding/token",
        "embedding/position",
    }


def test_pruned_zeros_have_no_sign() -> None:
    params = apply_masks(trees.classifier(), pruning_masks(trees.classifier(), Prune(0.5)))
    for leaf in jax.tree.leaves(params):
        assert not np.signbit(np.asarray(leaf)[np.asarray(leaf) == 0]).any()
    kept = apply_masks({"kernel": np.float32([-0.0, -1.0])}, {"kernel": np.array([True, False])})[
        "kernel"
    ]
    assert not np.signbit(kept).any()


def test_a_mask_without_parameter_is_an_error_unless_restricted() -> None:
    params = trees.classifier()
    masks = unflatten(
        {
            **flatten(pruning_masks(params, Prune(0.5))),
            "mlm_head/dense/kernel": np.ones((8, 8), bool),
        }
    )
    with pytest.raises(KeyError):
        apply_masks(params, masks)
    apply_masks(params, pruning.restrict_masks(masks, params))


def test_masks_from_zeros_finds_pruned_weights() -> None:
    params = trees.classifier()
    masks = pruning_masks(params, Prune(0.7, embeddings=False))
    found = pruning.masks_from_zeros(apply_masks(params, masks), [Prune(0.7, embeddings=False)])
    assert_same_masks(found, {path: np.asarray(mask) for path, mask in flatten(masks).items()})


def sizes(params: Any, masks: Any) -> dict[str, Any]:
    return measure(Compressed(params, {}, masks))


def test_sparsity_counts_both_ways() -> None:
    params = trees.classifier()
    counted = sizes(params, pruning_masks(params, Prune(0.75, embeddings=False)))
    in_scope = sum(
        leaf.size for leaf in prunable_leaves(params, Prune(0.75, embeddings=False)).values()
    )
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    zeros = round(0.75 * in_scope)
    assert (counted["params"], counted["nonzero"]) == (total, total - zeros)
    assert counted["sparsity"] == pytest.approx(0.75, abs=1e-3)
    assert counted["sparsity_all"] == zeros / total
    assert sizes(params, {})["sparsity"] == 0


def train(
    optimizer: optax.GradientTransformation, params: Any, state: Any, steps: int
) -> tuple[Any, Any]:
    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    rng = np.random.default_rng(1)
    for _ in range(steps):
        gradients = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), params)
        params, state = step(params, state, gradients)
    return params, state


def largest_revived(params: Any, masks: Any) -> float:
    flat = flatten(params)
    return max(
        float(jnp.abs(jnp.where(mask, 0, flat[path])).max())
        for path, mask in flatten(masks).items()
    )


def adamw() -> optax.GradientTransformation:
    return optax.adamw(0.1, weight_decay=0.1)


def test_masked_updates_keep_exact_zeros_and_masked_gradients_do_not() -> None:
    dense, state = train(
        adamw(), trees.few_leaves(), adamw().init(trees.few_leaves()), 3
    )  # momentum to start from
    masks = pruning_masks(dense, Prune(0.6))
    pruned = apply_masks(dense, masks)

    last = optax.chain(adamw(), mask_updates(masks))
    held, _ = train(last, pruned, (state, last.init(pruned)[1]), 20)
    assert largest_revived(held, masks) == 0
    assert not any(
        np.signbit(np.asarray(leaf)[np.asarray(leaf) == 0]).any() for leaf in jax.tree.leaves(held)
    )
    moved = jax.tree.map(lambda before, after: bool((before != after).any()), pruned, held)
    assert all(jax.tree.leaves(moved)), "kept weights go on training"

    first = optax.chain(mask_updates(masks), adamw())
    revived, _ = train(first, pruned, (first.init(pruned)[0], state), 20)
    assert largest_revived(revived, masks) > 0.1


def test_clear_moments_zeroes_moments_of_pruned_weights() -> None:
    params = trees.few_leaves()
    masks = pruning_masks(params, Prune(0.3))
    optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), adamw(), mask_updates(masks))
    _, state = train(optimizer, params, optimizer.init(params), 2)
    tighter = pruning_masks(apply_masks(params, masks), Prune(0.3), 0.6)
    cleared = clear_moments(state, tighter)
    assert jax.tree.structure(cleared) == jax.tree.structure(state)
    trace, adam, held = cleared[0][0].trace, cleared[1][0], cleared[2].masks
    for tree in (trace, adam.mu, adam.nu):
        assert largest_revived(tree, tighter) == 0
        assert float(jnp.abs(flatten(tree)["blocks/ffn/up/bias"]).min()) > 0, (
            "moments of other leaves stay"
        )
    assert_same_masks(held, {path: np.asarray(mask) for path, mask in flatten(tighter).items()})
    assert int(adam.count) == 2


def test_clear_moments_finds_them_under_other_names() -> None:
    params = trees.few_leaves()
    masks = pruning_masks(params, Prune(0.5))
    optimizer = optax.named_chain(("momentum", optax.trace(0.9)), ("rate", optax.scale(-0.1)))
    _, state = train(optimizer, params, optimizer.init(params), 1)
    assert largest_revived(state["momentum"].trace, masks) > 0
    assert largest_revived(clear_moments(state, masks)["momentum"].trace, masks) == 0
