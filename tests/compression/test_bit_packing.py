from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tlc_jax.compression import bit_packing as packing


@given(st.integers(1, 8), st.data())
def test_codes_survive_packing_without_gaps(bits: int, data: st.DataObject) -> None:
    codes = data.draw(
        arrays.arrays(np.uint8, st.integers(0, 50), elements=st.integers(0, 2**bits - 1))
    )
    packed = packing.pack(codes, bits)
    assert (
        packed.size == packing.packed_size(codes.size, bits) == int(np.ceil(codes.size * bits / 8))
    )
    np.testing.assert_array_equal(packing.unpack(packed, bits, codes.size), codes)
    each_bit = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :bits]
    np.testing.assert_array_equal(packed, np.packbits(each_bit, bitorder="little"))


def test_bit_order_is_fixed() -> None:
    assert packing.pack(np.uint8([1, 2, 3]), 4).tolist() == [0x21, 0x03]
    assert packing.pack_mask(np.array([[True, False], [False, True]])).tolist() == [0b1001]


@pytest.mark.parametrize("shape", [(0,), (7,), (3, 3), (2, 4, 8)])
def test_masks_survive_packing(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.3
    packed = packing.pack_mask(mask)
    assert packed.size == -(-mask.size // 8)
    np.testing.assert_array_equal(packing.unpack_mask(packed, shape), mask)
