from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

from tests.helpers import trees
from tlc_jax.compression import artifact as artifact_module
from tlc_jax.compression.apply import compress_params
from tlc_jax.compression.artifact import (
    Compressed,
    directory_bytes,
    load_artifact,
    measure,
    save_artifact,
)
from tlc_jax.compression.recipe import Recipe, parse_recipe
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten

SHARES = st.floats(0, 1, exclude_max=True).map(lambda share: f"prune:{share!r}")
PRUNES = st.builds(
    "".join,
    st.tuples(
        SHARES,
        st.sampled_from(
            ["", ",scope=tensor", ",scope=row", ",embeddings=false", ",only=embedding/.*"]
        ),
    ),
) | st.sampled_from(["prune:2:4", "prune:1:8,only=blocks/.+"])
QUANTIZES = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from([f"quantize:{bits}" for bits in (2, 3, 4, 5, 6, 7, 8, 32)]),
    st.sampled_from(["", ",per=tensor", ",group=4", ",group=8"]),
    st.sampled_from(["", ",scheme=minmax"]),
    st.sampled_from(["", ",range=mse", ",range=99"]),
    st.sampled_from(["", ",embeddings=false", ",only=blocks/.+/kernel"]),
)
# What is quantized once is not quantized again, and a selector that selects nothing any more is an
# error.
RECIPES = st.builds(
    lambda before, quantize, after: parse_recipe("+".join([*before, *quantize, *after]) or "dense"),
    st.lists(PRUNES, max_size=2),
    st.lists(QUANTIZES, max_size=1),
    st.lists(PRUNES, max_size=1),
)

METADATA = {
    "kind": "classifier",
    "labels": ["a", "b", "c"],
    "vocab_size": 32,
    "model": {"layers": 2},
    "bits": 4,
}
COMBINED = parse_recipe("prune:0.75+quantize:4")


def assert_bit_identical(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(RECIPES)
def test_loaded_artifact_is_bit_identical(tmp_path: Path, recipe: Recipe) -> None:
    model = compress_params(trees.few_leaves(), recipe)
    save_artifact(tmp_path / "model.safetensors", model, METADATA)
    loaded = load_artifact(tmp_path / "model.safetensors")
    assert_bit_identical(loaded.params, model.params)
    assert_bit_identical(loaded.masks, model.masks)
    assert loaded.metadata == METADATA
    assert measure(loaded) == measure(model)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "one.safetensors", tmp_path / "b" / "two.safetensors"]
    (tmp_path / "usual").touch()
    for file, metadata in zip(files, (METADATA, dict(reversed(METADATA.items()))), strict=True):
        save_artifact(file, compress_params(trees.few_leaves(), COMBINED), metadata)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_mode == (tmp_path / "usual").stat().st_mode
    again = tmp_path / "again.safetensors"
    loaded = load_artifact(files[0])
    save_artifact(again, loaded, loaded.metadata)
    assert again.read_bytes() == files[0].read_bytes()


@pytest.mark.parametrize(
    "recipe", ["prune:0.75+quantize:4", "prune:0.75+quantize:4,scheme=minmax", "dense"]
)
def test_a_small_encoders_file_is_near_its_ideal_size(tmp_path: Path, recipe: str) -> None:
    path = tmp_path / "model.safetensors"
    model = compress_params(trees.classifier(4, 256, 2048, positions=128), parse_recipe(recipe))
    save_artifact(path, model, METADATA)
    sizes = measure(model, path)
    assert sizes["bytes_artifact"] is not None
    # The file has a bitmap where the ideal format has the entropy of the positions.
    positions = sum(mask.size for mask in flatten(model.masks).values())
    bitmap = sizes["bytes_ideal"] + (1 - 0.80) * positions / 8
    assert sizes["bytes_ideal"] < sizes["bytes_artifact"] <= 1.02 * bitmap


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_artifact(path, compress_params(trees.few_leaves(), COMBINED), METADATA)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"truncated"):
        load_artifact(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_artifact(path, compress_params(trees.few_leaves(), COMBINED), METADATA)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_artifact(path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "not an artifact of tlc"),
        ({"format": "pt"}, "not an artifact of tlc"),
        ({"tlc_jax": "[1]"}, "not an artifact of tlc"),
        ({"tlc_jax": "{"}, "not an artifact, or a truncated one"),
        ({"tlc_jax": json.dumps({"format": 2})}, "artifact format 2 is not known"),
    ],
)
def test_foreign_safetensors_are_refused(
    tmp_path: Path, metadata: dict[str, str] | None, words: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(InputError, match=words):
        load_artifact(path)


def test_other_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such artifact"):
        load_artifact(tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("hello, world: not an artifact")
    with pytest.raises(InputError, match="not an artifact"):
        load_artifact(tmp_path / "notes.txt")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_artifact(path, compress_params(trees.few_leaves(), COMBINED), METADATA)
    before = path.read_bytes()

    def full_disk(file: Path, content: bytes) -> int:
        with file.open("wb") as half:
            half.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_artifact(path, compress_params(trees.few_leaves(), parse_recipe("dense")), METADATA)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_sizes_by_hand() -> None:
    params = trees.classifier()
    model = compress_params(
        params, parse_recipe("prune:0.5,embeddings=false+quantize:4,per=tensor,scheme=minmax")
    )
    flat = flatten(params)
    vectors = sum(leaf.size for path, leaf in flat.items() if path.endswith(("bias", "scale")))
    kernels = sum(leaf.size for path, leaf in flat.items() if path.endswith("kernel"))
    prunable = sum(
        leaf.size
        for path, leaf in flat.items()
        if path.startswith("blocks") and path.endswith("kernel")
    )
    tables = flat["embedding/token"].size + flat["embedding/position"].size
    matrices = 6 * 2 + 2 + 2  # of two layers, of the classifier, the tables
    sizes = measure(model)
    assert sizes["params"] == vectors + kernels + tables
    assert sizes["nonzero"] == vectors + tables + kernels - round(prunable / 2)
    paper_bits = 32 * vectors + 4 * (tables + kernels - round(prunable / 2))
    assert sizes["bytes_paper"] == -(-paper_bits // 8)
    # Near half of each kernel is kept, which takes little less than one bit for each position.
    most = -(-(paper_bits + prunable + 64 * matrices) // 8)
    assert most - 0.01 * prunable < sizes["bytes_ideal"] < most


@pytest.mark.parametrize(("kept", "bits"), [(8, 0.0), (4, 8.0), (2, 6.490225), (1, 4.348515)])
def test_positions_cost_their_entropy(kept: int, bits: float) -> None:
    mask = np.arange(8) < kept
    params = {"a": {"kernel": np.where(mask, 1.0, 0.0).astype(np.float32)}}
    ideal = measure(Compressed(params, {}, {"a": {"kernel": mask}}))["bytes_ideal"]
    assert ideal == 4 * kept + math.ceil(bits / 8)
    assert artifact_module._entropy_bits(mask) == pytest.approx(bits, abs=1e-6)


def test_size_of_files(tmp_path: Path) -> None:
    (tmp_path / "checkpoint" / "inner").mkdir(parents=True)
    (tmp_path / "checkpoint" / "a").write_bytes(bytes(10))
    (tmp_path / "checkpoint" / "inner" / "b").write_bytes(bytes(5))
    assert directory_bytes(tmp_path / "checkpoint") == 15
    sizes = measure(compress_params(trees.classifier(), Recipe()))
    assert sizes["bytes_artifact"] is None
    assert sizes["bytes_ideal"] == sizes["bytes_paper"] == 4 * sizes["params"]


@given(st.integers(1, 8), st.data())
def test_codes_survive_packing_without_gaps(bits: int, data: st.DataObject) -> None:
    codes = data.draw(arrays(np.uint8, st.integers(0, 50), elements=st.integers(0, 2**bits - 1)))
    packed = artifact_module.pack(codes, bits)
    assert packed.size == int(np.ceil(codes.size * bits / 8))
    np.testing.assert_array_equal(artifact_module.unpack(packed, bits, codes.size), codes)
    each_bit = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :bits]
    np.testing.assert_array_equal(packed, np.packbits(each_bit, bitorder="little"))


def test_bit_order_is_fixed() -> None:
    assert artifact_module.pack(np.uint8([1, 2, 3]), 4).tolist() == [0x21, 0x03]


def test_masks_take_a_bit_a_weight_and_survive(tmp_path: Path) -> None:
    for number, shape in enumerate([(0,), (7,), (3, 3), (2, 4, 8)]):
        mask = np.random.default_rng(0).random(shape) < 0.3
        file = tmp_path / f"{number}.safetensors"
        model = Compressed({"kernel": mask.astype(np.float32)}, {}, {"kernel": mask})
        save_artifact(file, model, {})
        assert load_file(file)["kernel:kept"].size == -(-mask.size // 8)
        assert_bit_identical(load_artifact(file).masks, model.masks)
    mask = np.array([[True, False], [False, True]])
    model = Compressed({"kernel": mask.astype(np.float32)}, {}, {"kernel": mask})
    save_artifact(tmp_path / "order.safetensors", model, {})
    assert load_file(tmp_path / "order.safetensors")["kernel:kept"].tolist() == [0b1001]
