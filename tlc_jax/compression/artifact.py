"""The packed file of a compressed model: a safetensors file that holds nothing that could be left out.

For a parameter at PATH it has, all little-endian:

    PATH         float32 values: the leaf itself, or the kept values alone where it was pruned
    PATH:codes   instead, where it was quantised: codes less the least code, `bits` bits each, first in the lowest bits;
                 of the kept weights alone where it was pruned
    PATH:scale   float32 scales, and PATH:zero float32 zero points where the scheme has them; of groups of inputs where
                 `grouped` says which axis is read in groups
    PATH:kept    where it was pruned: one bit per position, first in the lowest bit

The file's metadata is one JSON object: `format`, `shapes` and `bits` of the pruned and quantised leaves, `grouped` of
those with groups, `metadata` from the caller (kind, model, labels, tokenizer hash, recipe, ...) and a `checksum` of it
all. The same model gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tlc_jax.compression import bit_packing as packing
from tlc_jax.compression.apply import Compressed
from tlc_jax.compression.quantize import QuantizedTensor, dequantize_leaf, lowest_code
from tlc_jax.core.errors import InputError
from tlc_jax.core.params import flatten, unflatten

FORMAT = 1
KEY = "tlc_jax"  # one entry: safetensors writes several in random order


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What an artifact file holds.

    Attributes:
      model: the compressed model, as it was saved.
      metadata: what the caller saved beside it.
    """

    model: Compressed
    metadata: dict[str, Any]

    @property
    def params(self) -> dict[str, Any]:
        """Parameter tree, float32 on the host, bit-identical to what was evaluated before saving."""
        return self.model.params

    @property
    def masks(self) -> dict[str, Any]:
        """Masks of the pruned leaves, True where a weight is kept."""
        return self.model.masks


def save_artifact(path: Path, model: Compressed, metadata: Mapping[str, Any]) -> None:
    """Writes an artifact; a reader sees the whole file or none.

    Args:
      path: the file; its directory is made.
      model: the compressed model. `load_artifact` gives its `params` back to the bit.
      metadata: values that JSON can hold, added to the file's own.

    Raises:
      OSError: the disk is full or read-only; a file that was at `path` is still there.
    """
    tensors: dict[str, np.ndarray] = {}
    shapes: dict[str, list[int]] = {}
    bits: dict[str, int] = {}
    masks = flatten(model.masks)
    for name, leaf in flatten(model.params).items():
        mask = masks.get(name)
        if name in model.quantized:
            tensors |= _packed(name, model.quantized[name])
            bits[name] = model.quantized[name].bits
        else:
            tensors[name] = np.ascontiguousarray(leaf if mask is None else leaf[mask], np.float32)
        if mask is not None:
            tensors[f"{name}:kept"] = packing.pack_mask(mask)
        if mask is not None or name in model.quantized:
            shapes[name] = list(leaf.shape)
    grouped = {
        name: tensor.grouped
        for name, tensor in model.quantized.items()
        if tensor.grouped is not None
    }
    header = {
        "format": FORMAT,
        "shapes": shapes,
        "bits": bits,
        "grouped": grouped,
        "metadata": dict(metadata),
    }
    _write(path, tensors, _json({**header, "checksum": _checksum(header, tensors)}))


def load_artifact(path: Path) -> Artifact:
    """Reads an artifact.

    Raises:
      InputError: the file is missing, truncated, damaged, of another format version or no artifact at all.
    """
    header, tensors = _read(path)
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path}: artifact format {header.get('format')} is not known here; compress the model again"
        )
    if header.pop("checksum", None) != _checksum(header, tensors):
        raise InputError(
            f"{path}: the artifact is damaged (its checksum differs); copy it or compress the model again"
        )
    shapes = {name: tuple(shape) for name, shape in header["shapes"].items()}
    bits, grouped = header["bits"], header.get("grouped", {})
    masks = {
        name.removesuffix(":kept"): packing.unpack_mask(packed, shapes[name.removesuffix(":kept")])
        for name, packed in tensors.items()
        if name.endswith(":kept")
    }
    quantized = {
        name: _unpacked(name, tensors, shapes[name], bits[name], masks.get(name), grouped.get(name))
        for name in bits
    }
    params = {name: dequantize_leaf(tensor) for name, tensor in quantized.items()}
    for name in (name for name in tensors if ":" not in name):
        params[name] = _spread(tensors[name], masks[name]) if name in masks else tensors[name]
    model = Compressed(unflatten(dict(sorted(params.items()))), quantized, unflatten(masks))
    return Artifact(model, header["metadata"])


def _packed(name: str, tensor: QuantizedTensor) -> dict[str, np.ndarray]:
    codes = tensor.codes.reshape(-1) if tensor.kept is None else tensor.codes[tensor.kept]
    unsigned = codes.view(np.uint8) - np.uint8(tensor.lowest % 256)  # wraps around, as it should
    packed = {f"{name}:codes": packing.pack(unsigned, tensor.bits), f"{name}:scale": tensor.scale}
    return packed if tensor.zero is None else {**packed, f"{name}:zero": tensor.zero}


def _unpacked(
    name: str,
    tensors: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    bits: int,
    kept: np.ndarray | None,
    grouped: int | None,
) -> QuantizedTensor:
    zero = tensors.get(f"{name}:zero")
    count = int(np.prod(shape)) if kept is None else int(np.count_nonzero(kept))
    unsigned = packing.unpack(tensors[f"{name}:codes"], bits, count)
    codes = (unsigned + np.uint8(lowest_code(bits, zero is None) % 256)).view(
        np.int8 if zero is None else np.uint8
    )
    codes = codes.reshape(shape) if kept is None else _spread(codes, kept)
    return QuantizedTensor(codes, tensors[f"{name}:scale"], zero, bits, kept, grouped)


def _spread(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
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


def _write(path: Path, tensors: dict[str, np.ndarray], header: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # as the umask has it; safetensors would let the owner alone read
        save_file(tensors, temporary, {KEY: header})
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such artifact; `tlc compress` writes artifact/model.safetensors in its workdir"
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
