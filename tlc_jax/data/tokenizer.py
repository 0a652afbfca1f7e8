"""What every tokenizer does, and which file one is kept in."""

from __future__ import annotations

import abc
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.core.files import write_bytes
from tlc_jax.data.vocabulary import SpecialIds


class Tokenizer(abc.ABC):
    """Text to ids and back. Cheap to share between threads: encoding and decoding do not change it.

    Attributes:
      file_name: what its file is called in workdirs and beside artifacts.
      model: the content of that file.
      hash: of the content; it tells whether a model was trained with this tokenizer.
      vocab_size: ids, special ones included.
      special: the ids that stand for no text.
    """

    file_name: ClassVar[str]

    def __init__(self, model: bytes, vocab_size: int, special: SpecialIds) -> None:
        self.model, self.vocab_size, self.special = model, vocab_size, special
        self.hash = hashlib.sha256(model).hexdigest()

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tokenizer:
        """Reads a tokenizer's file, of whichever kind its name says; InputError if it is missing or foreign."""
        # Each kind is made on this class, and its library is loaded where it is used alone.
        from tlc_jax.data.imported_tokenizer import ImportedTokenizer
        from tlc_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer

        try:
            model = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"tokenizer {path} cannot be read: {error.strerror}") from None
        kind = (
            ImportedTokenizer
            if file_name(path) == ImportedTokenizer.file_name
            else SentencePieceTokenizer
        )
        return kind(model, f"tokenizer {path}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model file, whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, self.model)

    def encode(self, texts: Sequence[str], threads: int = 0) -> list[list[int]]:
        """Ids of each text, without special pieces. `threads` 0: one per core."""
        return [ids.tolist() for ids in self.encode_arrays(texts, threads)]

    @abc.abstractmethod
    def encode_arrays(self, texts: Sequence[str], threads: int = 0) -> list[np.ndarray]:
        """As `encode`, each text's ids as an int32 array."""

    @abc.abstractmethod
    def piece(self, id: int) -> str:
        """What the vocabulary has at an id."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special pieces are left out."""


def file_name(path: str | os.PathLike[str]) -> str:
    """What runs call their copy of the tokenizer at `path` (empty: one that is trained): its suffix tells the kind."""
    return "tokenizer.json" if Path(path).suffix == ".json" else "tokenizer.model"


def kept_in(folder: Path) -> Path:
    """The tokenizer's file in the folder of a run or of an artifact."""
    imported = folder / "tokenizer.json"
    return imported if imported.exists() else folder / "tokenizer.model"
