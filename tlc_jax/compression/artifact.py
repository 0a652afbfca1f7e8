"""The packed file of a compressed model: a safetensors file without a byte that could be left out.

For a parameter at PATH it has, all little-endian:

    PATH         float32 values: the leaf itself, or the kept values alone where it was pruned
    PATH:codes   instead, where it was quantized: codes less the least code, `bits` bits each, first
                 in the lowest bits; of the kept weights alone where it was pruned
    PATH:scale   float32 scales, and PATH:zero float32 zero points where the scheme has them; of
                 groups of inputs where `grouped` says which axis is split in groups
    PATH:kept    where it was pruned: one bit per position, first in the lowest bit

The file's metadata is one JSON object: `format`, `shapes` and `bits` of the pruned and quantized
leaves, `grouped` of those with groups, `metadata` from the caller (kind, model, labels, tokenizer
hash, recipe, ...) and a `checksum` of all that. The same model gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tlc_jax.compression.quantize import QuantizedTensor, dequantize_leaf, lowest_code
from tlc_jax.core import files
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten

ARTIFACT = Path("artifact") / "model.safetensors"
"""Where a workdir has its artifact."""
FORMAT = 1
KEY = "tlc_jax"  # one entry: safetensors writes several in random order
LANES = 8  # codes in a 64-bit word; also the bits that a code takes before packing


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A compressed model, dense ones included.

    Attributes:
      params: parameter tree, float32 on the host: the values that the compressed form stands for.
        Evaluate these.
      quantized: path -> quantized tensor, of the leaves that have one.
      masks: the leaves that lost weights, as bool arrays on the host, True where a weight is kept.
      metadata: what was saved beside the model in an artifact.
    """

    params: dict[str, Any]
    quantized: dict[str, QuantizedTensor]
    masks: dict[str, Any]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


def save_artifact(path: Path, model: Compressed, metadata: Mapping[str, Any]) -> None:
    """Writes an artifact; a reader sees the whole file or none.

    Args:
      path: the file; its directory is made.
      model: the compressed model. `load_artifact` gives its `params` back to the bit.
      metadata: values that JSON can represent, added to the file's own.

    Raises:
      OSError: the disk is full or read-only; a file that was at `path` is still there.
    """
    tensors: dict[str, np.ndarray] = {}
    shapes: dict[str, list[int]] = {}
    masks = flatten(model.masks)
    for name, leaf in flatten(model.params).items():
        mask = masks.get(name)
        if name in model.quantized:
            tensors |= _pack_tensor(name, model.quantized[name])
        else:
            tensors[name] = np.ascontiguousarray(leaf if mask is None else leaf[mask], np.float32)
        if mask is not None:
            tensors[f"{name}:kept"] = pack_mask(mask)
        if mask is not None or name in model.quantized:
            shapes[name] = list(leaf.shape)
    quantized = model.quantized.items()
    header = {
        "format": FORMAT,
        "shapes": shapes,
        "bits": {name: tensor.bits for name, tensor in quantized},
        "grouped": {
            name: tensor.grouped for name, tensor in quantized if tensor.grouped is not None
        },
        "metadata": dict(metadata),
    }
    text = _json({**header, "checksum": _checksum(header, tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.atomic(path) as temporary:
            save_safetensors(temporary, tensors, {KEY: text})
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def save_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a safetensors file that others may read as the umask says."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)  # safetensors makes files that their owner alone can read


def load_artifact(path: Path) -> Compressed:
    """Reads an artifact; its `params` are bit-identical to those that were evaluated before saving.

    Raises:
      InputError: the file is missing, truncated, damaged, of another format version or not an
        artifact.
    """
    header, tensors = _read(path)
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path}: artifact format {header.get('format')} is not known here; "
            "compress the model again"
        )
    if header.pop("checksum", None) != _checksum(header, tensors):
        raise InputError(
            f"{path}: the artifact is damaged (its checksum differs); "
            "copy it or compress the model again"
        )
    masks = {
        name: unpack_mask(tensors[f"{name}:kept"], tuple(shape))
        for name, shape in header["shapes"].items()
        if f"{name}:kept" in tensors
    }
    quantized = {
        name: _unpack_tensor(name, tensors, header, masks.get(name)) for name in header["bits"]
    }
    params = {name: dequantize_leaf(tensor) for name, tensor in quantized.items()}
    for name in (name for name in tensors if ":" not in name):
        params[name] = _scatter(tensors[name], masks[name]) if name in masks else tensors[name]
    params = unflatten(dict(sorted(params.items())))
    return Compressed(params, quantized, unflatten(masks), header["metadata"])


def _pack_tensor(name: str, tensor: QuantizedTensor) -> dict[str, np.ndarray]:
    codes = tensor.codes.reshape(-1) if tensor.kept is None else tensor.codes[tensor.kept]
    lowest = lowest_code(tensor.bits, symmetric=tensor.zero is None)
    unsigned = codes.view(np.uint8) - np.uint8(lowest % 256)  # wraps around modulo 256, as intended
    packed = {f"{name}:codes": pack(unsigned, tensor.bits), f"{name}:scale": tensor.scale}
    return packed if tensor.zero is None else {**packed, f"{name}:zero": tensor.zero}


def _unpack_tensor(
    name: str, tensors: Mapping[str, Any], header: Mapping[str, Any], kept: np.ndarray | None
) -> QuantizedTensor:
    zero, bits, shape = tensors.get(f"{name}:zero"), header["bits"][name], header["shapes"][name]
    count = int(np.prod(shape)) if kept is None else int(np.count_nonzero(kept))
    unsigned = unpack(tensors[f"{name}:codes"], bits, count)
    lowest = lowest_code(bits, symmetric=zero is None)
    codes = (unsigned + np.uint8(lowest % 256)).view(np.int8 if zero is None else np.uint8)
    codes = codes.reshape(shape) if kept is None else _scatter(codes, kept)
    # Files of the first releases have no groups.
    grouped = header.get("grouped", {}).get(name)
    return QuantizedTensor(codes, tensors[f"{name}:scale"], zero, bits, kept, grouped)


def _scatter(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """An array with `values` where `kept` is True and zeros elsewhere."""
    whole = np.zeros(kept.shape, values.dtype)
    whole[kept] = values
    return whole


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> int:
    total = zlib.crc32(_json(header).encode())
    for name in sorted(tensors):
        content = np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8)
        total = zlib.crc32(content.data, zlib.crc32(name.encode(), total))
    return total


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such artifact; "
            "`tlc compress` writes artifact/model.safetensors in its workdir"
        )
    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(
            f"{path}: not an artifact, or a truncated one ({error}); compress the model again"
        ) from error
    if not isinstance(header, dict):
        raise InputError(
            f"{path}: a safetensors file, but not an artifact of tlc; make one with `tlc compress`"
        )
    return header, tensors


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes [n], each below 2^bits, to uint8 bytes [ceil(n x bits / 8)] without gaps.

    Eight codes fill `bits` bytes, the first code in the lowest bits.
    """
    if bits == LANES:
        return codes.copy()
    padded = np.zeros(-(-codes.size // LANES) * LANES, np.uint8)
    padded[: codes.size] = codes
    words = padded.view("<u8")
    # Eight codes lie in the bytes of one 64-bit word. Neighboring lanes merge pairwise, in lanes of
    # 8, 16 and 32 bits: three whole-array operations, where a loop over bits would take many times
    # as long.
    for lane in (8, 16, 32):
        filled = bits * lane // LANES
        lower = _every_other(lane, filled)
        upper = (words >> np.uint64(lane - filled)) & (lower << np.uint64(filled))
        words = (words & lower) | upper
    size = -(-codes.size * bits // LANES)
    return words.view(np.uint8).reshape(-1, LANES)[:, :bits].reshape(-1)[:size]


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
        upper = (merged & (lower << np.uint64(filled))) << np.uint64(lane - filled)
        merged = (merged & lower) | upper
    return merged.view(np.uint8)[:count]


def _every_other(lane: int, filled: int) -> np.uint64:
    """A word with the lowest `filled` bits of every other lane set, the lowest lane included."""
    return np.uint64(sum((2**filled - 1) << start for start in range(0, 64, 2 * lane)))


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """A bool array of any shape to one bit an element, first element in the lowest bit, as uint8
    bytes.
    """
    return np.packbits(mask.reshape(-1), bitorder="little")


def unpack_mask(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack_mask`."""
    bits = np.unpackbits(packed, count=int(np.prod(shape)), bitorder="little")
    return bits.view(bool).reshape(shape)
