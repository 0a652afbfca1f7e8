"""A SentencePiece unigram tokenizer with byte fallback, under which every text comes back as it went in.

Ids: <pad> 0, <unk> 1, <s> 2, </s> 3, <mask> 4, then 256 byte pieces, then learned pieces. Special pieces are never
found in text, so a literal "<s>" is ordinary text.

Words are marked by the space before them, so a text is encoded with one space in front, which `decode` takes off.
SentencePiece writes spaces as U+2581 inside; a U+2581 in the text itself is therefore encoded by its bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import sentencepiece

from tlc_jax.core.errors import InputError
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import BOS, EOS, FIRST_ORDINARY, MASK, OURS, PAD, UNK

SPECIAL_PIECES = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_SPACE_SIGN = "\u2581"
_LONGEST_LINE = 4096  # characters of a line that training looks at at once
# SentencePiece sums expected counts thread by thread: another number of threads gives other last digits.
_TRAINING_THREADS = 4


class SentencePieceTokenizer(Tokenizer):
    """A trained model."""

    file_name: ClassVar[str] = "tokenizer.model"

    def __init__(self, model: bytes, where: str = "tokenizer") -> None:
        """Raises InputError if `model` is not a SentencePiece model with our special pieces; `where` names it."""
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            pieces = tuple(self._processor.id_to_piece(id) for id in range(len(SPECIAL_PIECES)))
        except (RuntimeError, IndexError, ValueError, TypeError):
            raise InputError(
                f"{where} is not a SentencePiece model: point tokenizer.path at one, or leave it empty"
            ) from None
        if pieces != SPECIAL_PIECES:
            raise InputError(
                f"{where} begins with the pieces {' '.join(pieces)}, not {' '.join(SPECIAL_PIECES)}: train one with "
                "`tlc prepare` (leave tokenizer.path empty)"
            )
        super().__init__(model, self._processor.vocab_size(), OURS)
        self._space_sign = [
            self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_SIGN.encode()
        ]

    def encode_arrays(self, texts: Sequence[str], threads: int = 0) -> list[np.ndarray]:
        marked = [text and " " + text for text in texts]
        odd: list[int] = []
        if _SPACE_SIGN in "".join(texts):  # so rare that one look at all of them pays
            odd = [row for row, text in enumerate(texts) if _SPACE_SIGN in text]
        for row in odd:
            marked[row] = ""
        ids = self._processor.encode(marked, return_type="numpy", num_threads=threads or -1)
        for row in odd:
            ids[row] = self._encode_with_space_signs(" " + texts[row])
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        text = self._processor.decode([int(id) for id in ids if id >= FIRST_ORDINARY])
        return text.removeprefix(" ")

    def piece(self, id: int) -> str:
        return str(self._processor.id_to_piece(id))

    def score(self, id: int) -> float:
        """The logarithm of a piece's probability."""
        return float(self._processor.get_score(id))

    def _encode_with_space_signs(self, text: str) -> np.ndarray:
        parts = self._processor.encode(text.split(_SPACE_SIGN), return_type="numpy")
        joined = [parts[0]]
        for part in parts[1:]:
            joined += [np.array(self._space_sign, np.int32), part]
        return np.concatenate(joined)


def train_tokenizer(lines: Iterable[str], vocab_size: int, train_bytes: int) -> Tokenizer:
    """Trains on at most `train_bytes` bytes of text, taken evenly from all over `lines`. Deterministic.

    Raises:
      InputError: there is no text, or not enough (or too much) of it for `vocab_size` pieces.
    """
    sample = [part for line in sample_lines(lines, train_bytes) for part in _cut(line)]
    if not sample:
        raise InputError("there is no text to train a tokenizer on: check data.train")
    writer = io.BytesIO()
    sentencepiece.set_min_log_level(3)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=writer,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            max_sentence_length=1 << 20,
            num_threads=_TRAINING_THREADS,
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            pad_piece=SPECIAL_PIECES[PAD],
            control_symbols=[SPECIAL_PIECES[MASK]],
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(_why_not_trained(str(error), vocab_size)) from None
    return SentencePieceTokenizer(writer.getvalue())


def sample_lines(lines: Iterable[str], most_bytes: int) -> list[str]:
    """Non-blank lines spread evenly over the whole stream, of `most_bytes` UTF-8 bytes at most in all.

    One pass in bounded memory: every k-th line is kept, and whenever that grows beyond twice the limit, k doubles.
    """
    kept: list[str] = []
    size, stride, seen = 0, 1, 0
    for line in lines:
        if not line:
            continue
        if seen % stride == 0:
            kept.append(line)
            size += len(line.encode())
            if size > 2 * most_bytes and len(kept) > 1:
                kept, stride = kept[::2], stride * 2
                size = sum(len(line.encode()) for line in kept)
        seen += 1
    return _thin(kept, size, most_bytes)


def _thin(kept: list[str], size: int, most_bytes: int) -> list[str]:
    """Drops lines evenly until the rest fits; one line always stays."""
    if size <= most_bytes:
        return kept
    result: list[str] = []
    budget, spent = 0.0, 0
    share = most_bytes / size
    for line in kept:
        length = len(line.encode())
        budget += length * share
        if spent + length <= budget or not result:
            result.append(line)
            spent += length
    return result


def _cut(line: str) -> list[str]:
    """A line in parts that the trainer does not throw away for their length, each with its leading space."""
    return [" " + line[at : at + _LONGEST_LINE] for at in range(0, len(line), _LONGEST_LINE)]


def _why_not_trained(message: str, vocab_size: int) -> str:
    setting = f"config.tokenizer.vocab_size={vocab_size}"
    if found := re.search(r"too high.*value <= (\d+)", message, re.DOTALL):
        return f"{setting} is too large for this text: set it to at most {found[1]}, or train on more text"
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"{setting} is too small for the characters of this text: set it to at least {found[1]}"
        )
    if "vocab_size" in message or "Vocabulary size" in message:
        fixed = FIRST_ORDINARY + 256
        return f"{setting} is too small: special and byte pieces alone are {fixed}; try 8192"
    return f"no tokenizer could be trained ({' '.join(message.split())[:200]}): check data.train and tokenizer.*"
