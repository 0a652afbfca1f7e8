"""A compressed model, its sizes, and its packed file: a safetensors file without a wasted byte.

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
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tlc_jax.compression.recipe import FLOAT_BITS
from tlc_jax.core import files
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten

ARTIFACT = Path("artifact") / "model.safetensors"
"""Where a workdir has its artifact."""
FORMAT = 1
KEY = "tlc_jax"  # one entry: safetensors writes several in random order
LANES = 8  # codes in a 64-bit word; also the bits that a code takes before packing


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """A weight matrix, or a stack of them, as small integers, on the host.

    Its values are scale x code (`zero` is None: AQT's symmetric scheme), or scale x code + zero
    (paper 1's scheme), and 0.0 where `kept` is False.

    Attributes:
      codes: AQT: int8 in [-(2^(bits-1) - 1), 2^(bits-1) - 1]. Minimum to maximum: uint8 in [0,
        2^bits - 1].
      scale: float32, broadcasts against codes, or against codes split in groups.
      zero: float32, the shape of `scale`: the value of code 0; or None.
      bits: bits of a code.
      kept: bool, False where a weight was pruned; None where none was.
      grouped: the axis of codes, counted from the front, that is split in groups; None without
        groups.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    bits: int
    kept: np.ndarray | None = None
    grouped: int | None = None


def dequantize_leaf(q: QuantizedTensor) -> np.ndarray:
    """The float32 values of a quantized leaf; zeros have no sign."""
    values = q.codes.astype(np.float32)
    in_groups = values
    if (at := q.grouped) is not None:
        shape = values.shape
        in_groups = values.reshape(*shape[:at], q.scale.shape[at], -1, *shape[at + 1 :])
    # In place, on a view of `values`: a large embedding exists once. NumPy rounds each operation;
    # XLA may fuse a product and a sum, and the values would differ in their last bits.
    in_groups *= q.scale
    if q.zero is not None:
        in_groups += q.zero
    if q.kept is not None:
        np.copyto(values, 0, where=~q.kept)
    return values


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A compressed model, dense ones included.

    Attributes:
      params: parameter tree, float32 on the host: the values that the compressed form stands for.
        Evaluate these.
      quantized: path -> quantized tensor, of the leaves that have one.
      masks: the leaves that lost weights, as bool arrays on the host, True where a weight is kept.
      metadata: metadata of the model in its artifact.
    """

    params: dict[str, Any]
    quantized: dict[str, QuantizedTensor]
    masks: dict[str, Any]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def bits(self, path: str) -> int:
        """Bits of each weight of a parameter."""
        return self.quantized[path].bits if path in self.quantized else FLOAT_BITS


def measure(model: Compressed, artifact: Path | None = None) -> dict[str, Any]:
    """The sizes of a model, by several definitions.

    Args:
      model: the compressed model.
      artifact: its artifact file; None where there is none.

    Returns:
      params: number of parameters, pruned ones included.
      nonzero: number of parameters that pruning left. Survivors that quantization rounds to zero
        count: they are stored.
      bits: bits of a quantized weight, on average where they differ; 32 where none is quantized.
      sparsity: pruned share of the leaves that lost weights.
      sparsity_all: pruned share of all parameters.
      bytes_ideal: bytes of a format without any overhead: each nonzero parameter at its bits, the
        positions of those of each tensor that lost weights, scales and zero points at 32 bits. The
        positions take the entropy of the mask, n H(kept / n) bits for n positions: one bit each, as
        in a bitmap and in the artifact, where half are kept, and fewer otherwise.
      bytes_paper: bytes that paper 1 plots: each nonzero parameter at its bits, as if its position
        and scale were free.
      bytes_artifact: bytes of the artifact file, or None.
    """
    masks = flatten(model.masks)
    params = nonzero = paper_bits = 0
    for path, leaf in flatten(model.params).items():
        stored = int(np.count_nonzero(masks[path])) if path in masks else leaf.size
        params += leaf.size
        nonzero += stored
        paper_bits += stored * model.bits(path)
    positions = sum(mask.size for mask in masks.values())
    index_bits = math.ceil(sum(_entropy_bits(mask) for mask in masks.values()))
    tensors = model.quantized.values()
    grids = sum(t.scale.size + (0 if t.zero is None else t.zero.size) for t in tensors)
    quantized = sum(t.codes.size for t in tensors)
    mean = sum(t.codes.size * t.bits for t in tensors) / quantized if quantized else FLOAT_BITS
    return {
        "params": params,
        "nonzero": nonzero,
        "bits": round(mean, 3) if mean % 1 else int(mean),
        "sparsity": (params - nonzero) / positions if positions else 0.0,
        "sparsity_all": (params - nonzero) / params,
        "bytes_ideal": -(-(paper_bits + index_bits + FLOAT_BITS * grids) // 8),
        "bytes_paper": -(-paper_bits // 8),
        "bytes_artifact": None if artifact is None else artifact.stat().st_size,
    }


def _entropy_bits(mask: np.ndarray) -> float:
    """Bits that say which positions of a tensor are kept, if they are independent.

    It exceeds log2 of the number of masks with as many kept by at most log2(n + 1) bits (Cover and
    Thomas, Elements of Information Theory, theorem 11.1.3).
    """
    share = np.count_nonzero(mask) / mask.size
    return -mask.size * sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def directory_bytes(directory: Path) -> int:
    """The total length of all files under a directory.

    `bytes_checkpoint` is that of the Orbax directory with the compressed parameters as float32,
    after its own general-purpose compression.
    """
    return files.folder_bytes(directory)


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
            tensors[f"{name}:kept"] = np.packbits(mask.reshape(-1), bitorder="little")
        if mask is not None or name in model.quantized:
            shapes[name] = list(leaf.shape)
    grouped = {name: tensor.grouped for name, tensor in model.quantized.items()}
    header = {
        "format": FORMAT,
        "shapes": shapes,
        "bits": {name: tensor.bits for name, tensor in model.quantized.items()},
        "grouped": {name: axis for name, axis in grouped.items() if axis is not None},
        "metadata": dict(metadata),
    }
    text = _json({**header, "checksum": _checksum(header, tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    # As bytes: save_file makes files that their owner alone can read.
    files.write_bytes(path, save(tensors, {KEY: text}))


def load_artifact(path: Path) -> Compressed:
    """Reads an artifact; its `params` are bit-identical to those that were evaluated before saving.

    Raises:
      InputError: the file is missing, truncated, damaged, of another format version or not an
        artifact.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such artifact; "
            "`tlc compress` writes artifact/model.safetensors in its workdir"
        )
    try:
        with files.local_copy(path) as local, safe_open(local, "np") as file:
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
    masks = {}
    for name, shape in header["shapes"].items():
        if (packed := tensors.get(f"{name}:kept")) is not None:
            bits = np.unpackbits(packed, count=math.prod(shape), bitorder="little")
            masks[name] = bits.view(bool).reshape(shape)
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
    unsigned = codes.view(np.uint8) - _lowest_code(tensor.bits, tensor.zero)
    packed = {f"{name}:codes": pack(unsigned, tensor.bits), f"{name}:scale": tensor.scale}
    return packed if tensor.zero is None else {**packed, f"{name}:zero": tensor.zero}


def _unpack_tensor(
    name: str, tensors: Mapping[str, Any], header: Mapping[str, Any], kept: np.ndarray | None
) -> QuantizedTensor:
    zero, bits, shape = tensors.get(f"{name}:zero"), header["bits"][name], header["shapes"][name]
    count = math.prod(shape) if kept is None else int(np.count_nonzero(kept))
    unsigned = unpack(tensors[f"{name}:codes"], bits, count)
    codes = (unsigned + _lowest_code(bits, zero)).view(np.int8 if zero is None else np.uint8)
    codes = codes.reshape(shape) if kept is None else _scatter(codes, kept)
    # Files of the first releases have no groups.
    grouped = header.get("grouped", {}).get(name)
    return QuantizedTensor(codes, tensors[f"{name}:scale"], zero, bits, kept, grouped)


def _lowest_code(bits: int, zero: np.ndarray | None) -> np.uint8:
    """The least code that a scheme uses, modulo 256: the arithmetic of uint8 wraps around."""
    return np.uint8((1 - 2 ** (bits - 1)) % 256 if zero is None else 0)


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


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes [n], each below 2^bits, to uint8 bytes [ceil(n x bits / 8)] without gaps.

    Eight codes fill `bits` bytes, the first code in the lowest bits.
    """
    # Eight codes are the bytes of one 64-bit word, which holds them `bits` apart.
    padded = np.zeros((-(-codes.size // LANES), LANES), np.uint8)
    padded.reshape(-1)[: codes.size] = codes
    words = np.zeros(len(padded), "<u8")
    for lane in range(LANES):
        words |= padded[:, lane].astype("<u8") << np.uint64(lane * bits)
    size = -(-codes.size * bits // LANES)
    return words.view(np.uint8).reshape(-1, LANES)[:, :bits].reshape(-1)[:size]


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`: the first `count` codes."""
    words = np.zeros((-(-count // LANES), LANES), np.uint8)
    padded = np.zeros((len(words), bits), np.uint8)
    padded.reshape(-1)[: packed.size] = packed
    words[:, :bits] = padded
    shifts = np.arange(LANES, dtype=np.uint64) * np.uint64(bits)
    codes = (words.view("<u8") >> shifts).astype(np.uint8) & np.uint8(2**bits - 1)
    return codes.reshape(-1)[:count]
