"""Reads public encoders from a folder saved by `transformers`: config, safetensors and tokenizer.

Nothing is fetched, and pickles are refused: loading one can execute code.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tlc_jax import config as configs
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import read_json, scheme_of
from tlc_jax.core.params import flatten, unflatten
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.interop.huggingface_names import Family, model_of, other_layout
from tlc_jax.models.network import Network, Params

PREFIX = "hf:"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# Old checkpoints store these, which follow from the settings.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


@dataclasses.dataclass(frozen=True)
class Imported:
    """An imported model.

    Attributes:
      meta: metadata as in our own checkpoints; `kind` is "mlm", "classifier", or
        "encoder" for a model without a head.
      params: parameters of the network that `meta` describes.
      pooler: first layer of a classification head that the model has beside that network; may be
        empty.
      unused: names of tensors that our model has no place for.
      tokenizer: the model's own tokenizer.
      tokenizer_path: file that the tokenizer was read from.
    """

    meta: dict[str, Any]
    params: Params
    pooler: Params
    unused: tuple[str, ...]
    tokenizer: Tokenizer
    tokenizer_path: Path


def find(source: str) -> Path:
    """The folder that `hf:FOLDER` names, after every check that needs no tensor.

    Raises:
      InputError: the folder or a file of it is missing, or the model is of an unknown family.
    """
    if scheme_of(source.removeprefix(PREFIX)):
        raise InputError(f"init.from={source}: copy the model to a disk, and name its folder")
    folder = Path(source.removeprefix(PREFIX)).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"init.from={source}: folder {folder} does not exist; "
            "models are read from disk, never fetched"
        )
    config = folder / "config.json"
    model_of(_read_json(config), str(config))
    _files(folder)
    _tokenizer_file(folder)
    return folder


def load(folder: Path) -> Imported:
    """Reads a folder that `find` has checked.

    Raises:
      InputError: a file is damaged, a tensor is missing or has the wrong shape, or the tokenizer
        belongs to another model.
    """
    where = str(folder / "config.json")
    settings = _read_json(Path(where))
    family, model = model_of(settings, where)
    tokenizer, tokenizer_path = _tokenizer(folder)
    if family.is_bert:  # token type 1 begins after the first separator
        model = dataclasses.replace(model, separator=tokenizer.special.end)
    vocab_size, padding = settings.get("vocab_size"), tokenizer.special.padding
    wrong = ""
    if tokenizer.vocab_size != vocab_size:
        wrong = f"has {tokenizer.vocab_size} pieces, and config.json says vocab_size {vocab_size}"
    elif padding != model.padding:
        wrong = f"pads with {padding}, and config.json says pad_token_id {model.padding}"
    if wrong:
        raise InputError(f"{tokenizer_path} {wrong}: the tokenizer is not this model's")
    # The files stay open until every tensor is read: each is read from disk only when it is needed.
    with contextlib.ExitStack() as stack:
        tensors = _Tensors(folder, stack, family, model.padding)
        architectures = map(str, settings.get("architectures") or ())
        kind = "mlm" if tensors.has("mlm_head/dense/kernel") else "encoder"
        labels: tuple[str, ...] = ()
        if any(name.endswith("ForSequenceClassification") for name in architectures):
            kind, labels = "classifier", _labels(settings, where)
        if kind == "mlm" and not family.is_bert and model.activation != "gelu":
            raise InputError(f"{where}: its masked-language head has gelu, not {model.activation}")
        network = Network(kind, model, tokenizer.vocab_size, len(labels), configs.Impl())
        shapes = {path: leaf.shape for path, leaf in flatten(network.abstract()).items()}
        types = settings.get("type_vocab_size", 2)
        params, pooler = tensors.leaves(shapes, types), {}
        kernel, bias = "classifier/dense/kernel", "classifier/dense/bias"
        if family.is_bert and kind != "classifier" and tensors.has(kernel):
            shapes = {kernel: (model.hidden, model.hidden), bias: (model.hidden,)}
            pooler = tensors.leaves(shapes, types)
        if kind == "mlm":
            tensors.check_tied(params)
        # Last, because every read above counts as a use.
        unused = tensors.unused()
    meta = {
        "kind": kind,
        "model": configs.to_dict(model),
        "length": model.max_length,
        "labels": list(labels),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_hash": tokenizer.hash,
    }
    return Imported(meta, params, pooler, unused, tokenizer, tokenizer_path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing: a folder as `transformers` saves models is needed")
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder."""
    if (folder / _INDEX).exists():
        places = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise InputError(f"{folder / _INDEX} has no weight_map: save the model again")
        for file in sorted(set(places.values())):
            # A name with a folder in it could point outside of the model's folder.
            if Path(file).name != file or not (folder / file).is_file():
                raise InputError(
                    f"{folder / file} is missing, which {_INDEX} names: copy the whole folder"
                )
        return [folder / file for file in sorted(set(places.values()))]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if pickles := sorted(file.name for file in folder.glob("*.bin")):
        raise InputError(
            f"{folder} has its weights in {pickles[0]} alone, a pickle, which is never loaded: "
            f"convert it to {_SINGLE} (with `save_pretrained` of transformers)"
        )
    raise InputError(f"{folder} has no weights: neither {_SINGLE} nor {_INDEX}")


class _Tensors:
    """The tensors of a folder by name; remembers which were read."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, family: Family, padding: int):
        self._folder, self._family, self._padding = folder, family, padding
        self._place: dict[str, tuple[Any, str, Path]] = {}  # name -> file, name in it, path
        self._read: set[str] = set()
        for path in _files(folder):
            try:
                opened = stack.enter_context(safe_open(path, "np"))
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"{path} is damaged or cut short ({error}): copy it again"
                ) from None
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                # Checkpoints converted from TensorFlow have the older names.
                new_name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
                new_name = new_name.replace("LayerNorm.beta", "LayerNorm.bias")
                self._place[new_name] = (opened, name, path)
        # Models without a head are saved without the prefix.
        if not any(name.startswith(family.base) for name in self._place):
            self._family = dataclasses.replace(family, base="")

    def has(self, path: str) -> bool:
        """Whether there is a tensor for the leaf at our path."""
        return self._family.name(path) in self._place

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor, float32."""
        tied = name.replace(".bias", ".decoder.bias")
        if name not in self._place and tied in self._place:
            name = tied  # a head has one bias, stored under either name
        if name not in self._place:
            raise InputError(
                f"{self._folder} has no tensor {name}: "
                "the model is incomplete, or not what config.json says"
            )
        file, own_name, path = self._place[name]
        # The shape is in the file's header: a wrong tensor is refused before it is loaded.
        found = tuple(file.get_slice(own_name).get_shape())
        if found != shape:
            raise InputError(
                f"{path}: {name} has the shape {list(found)}, "
                f"and config.json makes it {list(shape)}"
            )
        self._read.add(name)
        return np.asarray(file.get_tensor(own_name), np.float32)

    def leaves(self, shapes: Mapping[str, tuple[int, ...]], types: int) -> Params:
        """Parameters in our layout; `huggingface_export.tensors` is the way back.

        Args:
          shapes: our path -> shape of each leaf to read.
          types: number of rows of their table of token types.
        """

        def one(path: str, shape: tuple[int, ...], layer: int | str = "") -> np.ndarray:
            shape = shape[::-1] if path.endswith("/kernel") else shape
            return other_layout(path, self.read(self._family.name(path, layer), shape))

        found = {}
        for path, shape in shapes.items():
            if path.startswith("blocks/"):
                found[path] = np.stack([one(path, shape[1:], layer) for layer in range(shape[0])])
            elif path == "embedding/position":
                first = self._family.first_position(self._padding)
                table = one(path, (first + shape[0], shape[1]))[first:]
                # A type that every token has is a constant: added to the positions, it needs no
                # table.
                if not self._family.is_bert and types:
                    table = table + one("embedding/token_type", (types, shape[1]))[0]
                found[path] = table
            else:
                found[path] = one(path, shape)
        return unflatten(found)

    def check_tied(self, params: Params) -> None:
        """Refuses a masked-language head whose output matrix is not the token embedding."""
        head = self._family.modules["mlm_head"]
        for name, ours, wrong in (
            ("weight", params["embedding"]["token"], "is not the token embedding"),
            ("bias", params["mlm_head"]["bias"], f"differs from {head}.bias"),
        ):
            theirs = f"{head}.decoder.{name}"
            if theirs in self._place and not np.array_equal(self.read(theirs, ours.shape), ours):
                raise InputError(f"{theirs} {wrong}: only models that tie the two can be imported")

    def unused(self) -> tuple[str, ...]:
        """Names of tensors that were never read, buffers left out."""
        left = self._place.keys() - self._read
        return tuple(sorted(name for name in left if not name.endswith(_BUFFERS)))


def _labels(settings: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The classes in the order of their numbers; without id2label two, named as in transformers."""
    names = settings.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    numbers = [str(number) for number in range(len(names))]
    labels = tuple(str(names.get(number)) for number in numbers)
    if len(set(labels)) < len(names) or not all(number in names for number in numbers):
        raise InputError(f"{where}: id2label does not number different labels from 0 on")
    if len(labels) < 2:
        raise InputError(
            f"{where}: a single label is a regression, and only classification can be imported"
        )
    return labels


def _tokenizer_file(folder: Path) -> Path:
    for names in (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt")):
        if all((folder / name).is_file() for name in names):
            return folder / names[0]
    raise InputError(
        f"{folder} has no tokenizer: "
        "neither tokenizer.json, nor vocab.txt, nor vocab.json with merges.txt"
    )


def _tokenizer(folder: Path) -> tuple[Tokenizer, Path]:
    from tlc_jax.data import imported_tokenizer  # loads a library that few runs need

    path, settings_path = _tokenizer_file(folder), folder / "tokenizer_config.json"
    settings = _read_json(settings_path) if settings_path.exists() else {}
    if path.suffix == ".txt":
        model = imported_tokenizer.from_word_pieces(
            path,
            lower_case=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
            split_chinese=settings.get("tokenize_chinese_chars", True),
        )
    elif path.name == "vocab.json":
        prefix_space = settings.get("add_prefix_space", False)
        model = imported_tokenizer.from_byte_pairs(path, folder / "merges.txt", prefix_space)
    else:
        model = path.read_bytes()
    return imported_tokenizer.ImportedTokenizer(model, str(path)), path
