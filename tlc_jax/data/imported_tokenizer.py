"""Tokenizers of public models, in the format of the `tokenizers` library (tokenizer.json).

Their special pieces have ids of their own, which are read from what the file itself puts around a
text and a pair. Special pieces that are written out in a text are ordinary text.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors
from tokenizers.implementations import BertWordPieceTokenizer

from tlc_jax.core.errors import InputError
from tlc_jax.data.tokenizer import SpecialIds, Tokenizer

# The number of the library's own threads cannot be set. Threads of ours call it instead, and each
# call stays in its thread.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class ImportedTokenizer(Tokenizer):
    """The tokenizer of a model that was trained elsewhere."""

    file_name: ClassVar[str] = "tokenizer.json"

    def __init__(self, model: bytes, where: str = "tokenizer") -> None:
        """Reads a tokenizer.

        Args:
          model: content of the file.
          where: name of the file, for error messages.

        Raises:
          InputError: `model` is not a tokenizer.json with all the special pieces.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(model)
        except Exception as error:  # the library raises nothing narrower
            what = f"is not a tokenizer.json, or was cut short ({error})"
            raise InputError(f"{where} {what}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Despite its name, this makes special pieces in a text ordinary text.
        self._tokenizer.encode_special_tokens = True
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        super().__init__(model, size, _special_ids(self._tokenizer, where))

    def encode_arrays(self, texts: Sequence[str], threads: int = 0) -> list[np.ndarray]:
        count = max(1, min(threads or os.cpu_count() or 1, len(texts)))
        bounds = np.linspace(0, len(texts), count + 1).astype(int)
        parts = [texts[start:end] for start, end in itertools.pairwise(bounds)]
        with ThreadPoolExecutor(count, "tokenize") as pool:
            return [ids for part in pool.map(self._encode, parts) for ids in part]

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def piece(self, id: int) -> str:
        return str(self._tokenizer.id_to_token(id))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([int(id) for id in ids], skip_special_tokens=True))


def _special_ids(tokenizer: Any, where: str) -> SpecialIds:
    def id_of(role: str, *names: str) -> int:
        for name in names:
            if (id := tokenizer.token_to_id(name)) is not None:
                return int(id)
        raise InputError(f"{where} has no {role} piece, neither {names[0]} nor {names[1]}")

    padding, mask = id_of("padding", "[PAD]", "<pad>"), id_of("mask", "[MASK]", "<mask>")
    unknown = id_of("unknown", "[UNK]", "<unk>")
    # Empty texts, so that all ids are those that the tokenizer puts around them.
    single, pair = tokenizer.encode("").ids, tokenizer.encode("", "").ids
    if len(pair) < 3 or single != [pair[0], pair[-1]]:
        needed = "START a END and START a ... b END are needed"
        raise InputError(f"{where} frames texts in a way that tlc does not know: {needed}")
    start, *between, end = pair
    declared = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    every = tuple(sorted({padding, mask, unknown, *pair, *declared}))
    return SpecialIds(padding, start, tuple(between), end, mask, every)


def from_word_pieces(
    vocabulary: Path, lower_case: bool, strip_accents: bool | None, split_chinese: bool
) -> bytes:
    """BERT's tokenizer as tokenizer.json.

    Args:
      vocabulary: vocab.txt with a piece a line.
      lower_case: whether to lower the case of a text first.
      strip_accents: whether to remove accents; None: if `lower_case`.
      split_chinese: whether every Chinese character is a word.

    Raises:
      InputError: a special piece is missing.
    """
    pieces = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ids = {piece: id for id, piece in enumerate(pieces)}
    _check_pieces(vocabulary, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], ids)
    tokenizer = BertWordPieceTokenizer(
        ids, lowercase=lower_case, strip_accents=strip_accents, handle_chinese_chars=split_chinese
    )
    return tokenizer.to_str().encode()


def from_byte_pairs(vocabulary: Path, merges: Path, prefix_space: bool) -> bytes:
    """RoBERTa's tokenizer as tokenizer.json.

    Args:
      vocabulary: vocab.json.
      merges: merges.txt.
      prefix_space: whether a text is encoded with a space in front.

    Raises:
      InputError: the files do not fit, or a special piece is missing.
    """
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{vocabulary} and {merges} are not byte-pair files: {error}") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    ids = tokenizer.get_vocab()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    _check_pieces(vocabulary, special, ids)
    # RoBERTa's mask takes the space before it along.
    tokenizer.add_special_tokens([*special[:-1], tokenizers.AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=prefix_space
    )
    return tokenizer.to_str().encode()


def _check_pieces(vocabulary: Path, special: list[str], ids: dict[str, int]) -> None:
    if not set(special) <= ids.keys():
        needed = f"{', '.join(special[:-1])} and {special[-1]} are needed"
        raise InputError(f"{vocabulary} lacks special pieces: {needed}")
