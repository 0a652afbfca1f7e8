"""Integers of 1 to 8 bits, packed without gaps.

Eight codes fill `bits` bytes, the first code in the lowest bits. They are packed inside one 64-bit word, whose lanes
are merged pairwise in three steps, so that a few whole-array operations handle eight codes at a time.
"""

from __future__ import annotations

import numpy as np

LANES = 8  # codes in a word; also the bits that a code takes before packing


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes [n], each below 2^bits, to uint8 bytes [ceil(n x bits / 8)]."""
    if bits == LANES:
        return codes.copy()
    padded = np.zeros(-(-codes.size // LANES) * LANES, np.uint8)
    padded[: codes.size] = codes
    words = padded.view("<u8")
    for lane in (
        8,
        16,
        32,
    ):  # of two neighbouring lanes the upper one moves down to meet the lower one
        filled = bits * lane // LANES
        lower = _every_other(lane, filled)
        words = (words & lower) | (
            (words >> np.uint64(lane - filled)) & (lower << np.uint64(filled))
        )
    return (
        words.view(np.uint8)
        .reshape(-1, LANES)[:, :bits]
        .reshape(-1)[: packed_size(codes.size, bits)]
    )


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`: the first `count` codes."""
    if bits == LANES:
        return packed[:count].copy()
    padded = np.zeros(-(-count // LANES) * bits, np.uint8)
    padded[: packed.size] = packed
    words = np.zeros((padded.size // bits, LANES), np.uint8)
    words[:, :bits] = padded.reshape(-1, bits)
    merged = words.reshape(-1).view("<u8")
    for lane in (32, 16, 8):
        filled = bits * lane // LANES
        lower = _every_other(lane, filled)
        merged = (merged & lower) | (
            (merged & (lower << np.uint64(filled))) << np.uint64(lane - filled)
        )
    return merged.view(np.uint8)[:count]


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` packed codes."""
    return -(-count * bits // LANES)


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """A bool array of any shape to one bit an element, first element in the lowest bit, as uint8 bytes."""
    return np.packbits(mask.reshape(-1), bitorder="little")


def unpack_mask(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack_mask`."""
    return (
        np.unpackbits(packed, count=int(np.prod(shape)), bitorder="little")
        .view(bool)
        .reshape(shape)
    )


def _every_other(lane: int, filled: int) -> np.uint64:
    """A word with the lowest `filled` bits of every other lane set, the lowest lane included."""
    return np.uint64(sum((2**filled - 1) << start for start in range(0, 64, 2 * lane)))
