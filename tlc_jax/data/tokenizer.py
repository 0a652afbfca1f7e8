"""What every tokenizer does, the ids of special pieces, and how token ids are stored and padded."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of, write_bytes

PAD, UNK, BOS, EOS, MASK = range(5)
FIRST_ORDINARY = 5
"""The first id of text (byte pieces included); ids below it are never predicted or drawn."""


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The ids of a tokenizer's special pieces.

    Attributes:
      padding: id after the ends of rows.
      start: id before a text or a pair.
      between: ids between the two texts of a pair; RoBERTa has two of them.
      end: id after a text or a pair, and after every document of packed rows.
      mask: id in place of a token to predict.
      all: every special id, ascending; these are never predicted or drawn.
    """

    padding: int
    start: int
    between: tuple[int, ...]
    end: int
    mask: int
    all: tuple[int, ...]


OURS = SpecialIds(PAD, BOS, (EOS,), EOS, MASK, tuple(range(FIRST_ORDINARY)))
"""The special ids of tokenizers trained here."""


class Tokenizer(abc.ABC):
    """Turns text into token ids and back. Threads may share it.

    Attributes:
      file_name: name of its file in workdirs and beside artifacts.
      model: content of that file.
      hash: SHA-256 of the content; tells whether a model was trained with this tokenizer.
      vocab_size: number of ids, special ones included.
      special: ids that stand for no text.
    """

    file_name: ClassVar[str]

    def __init__(self, model: bytes, vocab_size: int, special: SpecialIds) -> None:
        self.model, self.vocab_size, self.special = model, vocab_size, special
        self.hash = hashlib.sha256(model).hexdigest()

    @staticmethod
    def load(path: str | Path) -> Tokenizer:
        """Reads a tokenizer.json if the name ends in .json, and a SentencePiece model otherwise.

        Raises:
          InputError: the file is missing, or is not a tokenizer that tlc can use.
        """
        try:
            model = path_of(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"tokenizer {path} cannot be read: {error.strerror or error}"
            ) from None
        # Imported here, because both modules import this one and load a library of their own.
        if file_name(path) == "tokenizer.json":
            from tlc_jax.data.imported_tokenizer import ImportedTokenizer

            return ImportedTokenizer(model, f"tokenizer {path}")
        from tlc_jax.data.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(model, f"tokenizer {path}")

    def save(self, path: Path) -> None:
        """Writes the model file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, self.model)

    def encode(self, texts: Sequence[str], threads: int = 0) -> list[list[int]]:
        """The ids of each text, without special pieces.

        Args:
          texts: any strings.
          threads: number of threads; 0: one per core.
        """
        return [ids.tolist() for ids in self.encode_arrays(texts, threads)]

    @abc.abstractmethod
    def encode_arrays(self, texts: Sequence[str], threads: int = 0) -> list[np.ndarray]:
        """Like `encode`, with the ids of each text as an int32 array."""

    @abc.abstractmethod
    def piece(self, id: int) -> str:
        """The vocabulary's entry for an id."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special pieces."""


def file_name(path: str | Path) -> str:
    """The name of a run's copy of the tokenizer at `path`; an empty path means a trained one."""
    return "tokenizer.json" if str(path).endswith(".json") else "tokenizer.model"


def kept_in(folder: Path) -> Path:
    """The path of the tokenizer in the folder of a run or an artifact."""
    imported = folder / "tokenizer.json"
    return imported if imported.exists() else folder / "tokenizer.model"


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrower of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def padded(
    tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int, padding: int
) -> np.ndarray:
    """Rows of unequal length as a table.

    Args:
      tokens: ids of all rows, one row after the other, [total].
      starts: place of each row's first id in `tokens`, [N].
      lengths: number of ids of each row, at most `width`, [N].
      width: columns of the table.
      padding: id after the end of each row.

    Returns:
      int32 [N, width].
    """
    columns = np.arange(width)
    # Every row is read to the full width. Clipping keeps the last rows within the array; what they
    # read beyond their ends is replaced by padding.
    places = np.minimum(starts[:, None] + columns, len(tokens) - 1)
    return np.where(columns < lengths[:, None], tokens[places], padding).astype(np.int32)
