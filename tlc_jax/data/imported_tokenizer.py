"""Tokenizers that public models come with, in the format of the `tokenizers` library (tokenizer.json).

Their special pieces have ids of their own, which are read off what the file itself puts around a text and a pair.
Special pieces that are written out in a text are ordinary text.
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
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tlc_jax.core.errors import InputError
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import SpecialIds

# The library's own threads cannot be told their number. Ours can, and each call of theirs stays in its thread.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_NAMES = {
    "padding": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "unknown": ("[UNK]", "<unk>"),
}


class ImportedTokenizer(Tokenizer):
    """The tokenizer of a model that was trained elsewhere."""

    file_name: ClassVar[str] = "tokenizer.json"

    def __init__(self, model: bytes, where: str = "tokenizer") -> None:
        """Raises InputError if `model` is not a tokenizer.json with all the special pieces; `where` names it."""
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(model)
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"{where} is not a tokenizer.json, or was cut short ({error})"
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        super().__init__(model, size, _special_ids(self._tokenizer, where))

    def encode_arrays(self, texts: Sequence[str], threads: int = 0) -> list[np.ndarray]:
        count = max(1, min(threads or os.cpu_count() or 1, len(texts)))
        bounds = np.linspace(0, len(texts), count + 1).astype(int)
        parts = [texts[start:end] for start, end in itertools.pairwise(bounds)]
        if count == 1:
            return self._encode(parts[0])
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
    named = {}
    for role, names in _NAMES.items():
        ids = [id for name in names if (id := tokenizer.token_to_id(name)) is not None]
        if not ids:
            raise InputError(f"{where} has no {role} piece, neither {names[0]} nor {names[1]}")
        named[role] = ids[0]
    single, pair = _frame(tokenizer, ""), _frame(tokenizer, "", "")
    if len(single) != 2 or len(pair) < 3 or (pair[0], pair[-1]) != (single[0], single[1]):
        raise InputError(
            f"{where} frames texts in no way known here: needed are START a END and START a ... b END"
        )
    declared = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    return SpecialIds(
        padding=named["padding"],
        start=single[0],
        between=tuple(pair[1:-1]),
        end=single[1],
        mask=named["mask"],
        all=tuple(sorted({*named.values(), *pair, *declared})),
    )


def _frame(tokenizer: Any, *texts: str) -> list[int]:
    """The special pieces that are put around texts."""
    encoding = tokenizer.encode(*texts)
    return [
        id
        for id, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        if special
    ]


def from_word_pieces(
    vocabulary: Path, lower_case: bool, strip_accents: bool | None, split_chinese: bool
) -> bytes:
    """BERT's tokenizer, as tokenizer.json, from a vocab.txt with a piece a line."""
    pieces = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ids = {piece: id for id, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=split_chinese,
        strip_accents=strip_accents,
        lowercase=lower_case,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if not set(special) <= ids.keys():
        raise InputError(
            f"{vocabulary} lacks special pieces: [PAD], [UNK], [CLS], [SEP] and [MASK] are needed"
        )
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    return tokenizer.to_str().encode()


def from_byte_pairs(vocabulary: Path, merges: Path, prefix_space: bool) -> bytes:
    """RoBERTa's tokenizer, as tokenizer.json, from a vocab.json and a merges.txt."""
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(
            f"{vocabulary} and {merges} do not hold a byte-pair vocabulary ({error})"
        ) from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    ids = tokenizer.get_vocab()
    if not {"<s>", "<pad>", "</s>", "<unk>", "<mask>"} <= ids.keys():
        raise InputError(
            f"{vocabulary} lacks special pieces: <s>, <pad>, </s>, <unk> and <mask> are needed"
        )
    tokenizer.add_special_tokens(
        ["<s>", "<pad>", "</s>", "<unk>", tokenizers.AddedToken("<mask>", lstrip=True)]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=prefix_space
    )
    return tokenizer.to_str().encode()
