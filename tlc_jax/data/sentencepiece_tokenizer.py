"""A SentencePiece unigram tokenizer with byte fallback, which gives back every text as it was.

Ids: <pad> 0, <unk> 1, <s> 2, </s> 3, <mask> 4, then 256 byte pieces, then learned pieces. Special
pieces are never found in text, so a literal "<s>" is ordinary text.

Words are marked by the space before them, so a text is encoded with one space in front, which
`decode` takes off. SentencePiece writes spaces as U+2581; a U+2581 in the text itself is therefore
encoded by its bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import sentencepiece

from tlc_jax.core.errors import InputError
from tlc_jax.core.text import one_line
from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY, MASK, OURS, PAD, UNK, Tokenizer

SPECIAL_PIECES = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_SPACE_SIGN = "\u2581"
_LONGEST_LINE = 4096  # characters; training sees longer lines in parts
# SentencePiece sums expected counts thread by thread: another number of threads gives other last
# digits, and so another vocabulary.
_TRAINING_THREADS = 4


class SentencePieceTokenizer(Tokenizer):
    """A tokenizer that was trained here."""

    file_name: ClassVar[str] = "tokenizer.model"

    def __init__(self, model: bytes, where: str = "tokenizer") -> None:
        """Reads a model.

        Args:
          model: content of the file.
          where: name of the file, for error messages.

        Raises:
          InputError: `model` is not a SentencePiece model with our special pieces.
        """
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            pieces = tuple(map(self._processor.id_to_piece, range(len(SPECIAL_PIECES))))
        except (RuntimeError, IndexError, ValueError, TypeError):
            hint = "point tokenizer.path at one, or leave it empty"
            raise InputError(f"{where} is not a SentencePiece model: {hint}") from None
        if pieces != SPECIAL_PIECES:
            expected = f"{' '.join(SPECIAL_PIECES)}: train one with `tlc prepare`"
            raise InputError(f"{where} begins with the pieces {' '.join(pieces)}, not {expected}")
        super().__init__(model, self._processor.vocab_size(), OURS)
        signs = [f"<0x{byte:02X}>" for byte in _SPACE_SIGN.encode()]
        self._space_sign = np.array(self._processor.piece_to_id(signs), np.int32)

    def encode_arrays(self, texts: Sequence[str], threads: int = 0) -> list[np.ndarray]:
        marked = [text and " " + text for text in texts]
        ids = list(self._processor.encode(marked, return_type="numpy", num_threads=threads or -1))
        if _SPACE_SIGN in "".join(texts):  # rare: one look at all texts together is cheap
            for row, text in enumerate(marked):
                if _SPACE_SIGN in text:
                    ids[row] = self._encode_with_space_signs(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text = self._processor.decode([int(id) for id in ids if id >= FIRST_ORDINARY])
        return text.removeprefix(" ")

    def piece(self, id: int) -> str:
        return str(self._processor.id_to_piece(id))

    def score(self, id: int) -> float:
        """The logarithm of a piece's probability."""
        return float(self._processor.get_score(id))

    def _encode_with_space_signs(self, text: str) -> np.ndarray:
        first, *rest = self._processor.encode(text.split(_SPACE_SIGN), return_type="numpy")
        return np.concatenate([first, *(ids for part in rest for ids in (self._space_sign, part))])


def train_tokenizer(lines: Iterable[str], vocab_size: int, train_bytes: int) -> Tokenizer:
    """Trains a tokenizer; the same text gives the same tokenizer.

    Args:
      lines: text.
      vocab_size: number of ids, special ones included.
      train_bytes: UTF-8 bytes of text to train on, spread evenly over `lines`.

    Raises:
      InputError: the text is empty, or not enough (or too much) for `vocab_size` pieces.
    """
    # The trainer drops lines that are too long; parts of them it takes, each after a space.
    sample = [
        " " + line[at : at + _LONGEST_LINE]
        for line in sample_lines(lines, train_bytes)
        for at in range(0, len(line), _LONGEST_LINE)
    ]
    if not sample:
        raise InputError("the text to train a tokenizer on is empty: check data.train")
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
    """Non-blank lines spread evenly over the whole stream, at most `most_bytes` UTF-8 bytes.

    One line always stays. Needs one pass and memory for twice that many bytes.
    """
    kept: list[str] = []
    size, stride = 0, 1
    for number, line in enumerate(filter(None, lines)):
        # Every k-th line is kept, and k doubles whenever there are too many.
        if number % stride == 0:
            kept.append(line)
            size += len(line.encode())
            if size > 2 * most_bytes and len(kept) > 1:
                kept, stride = kept[::2], stride * 2
                size = sum(len(line.encode()) for line in kept)
    if size <= most_bytes:
        return kept
    thinned: list[str] = []
    # Lines are taken whenever the budget, which grows along the text, allows for one.
    budget, spent = 0.0, 0
    share = most_bytes / size
    for line in kept:
        length = len(line.encode())
        budget += length * share
        if spent + length <= budget or not thinned:
            thinned.append(line)
            spent += length
    return thinned


def _why_not_trained(message: str, vocab_size: int) -> str:
    setting = f"config.tokenizer.vocab_size={vocab_size}"
    if found := re.search(r"too high.*value <= (\d+)", message, re.DOTALL):
        return f"{setting} is too large for this text: set it to at most {found[1]}, or add text"
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return f"{setting} is too small for this text's characters: set it to at least {found[1]}"
    if "vocab_size" in message or "Vocabulary size" in message:
        fixed = FIRST_ORDINARY + 256
        return f"{setting} is too small: special and byte pieces alone are {fixed}; try 8192"
    return f"training a tokenizer failed ({one_line(message)[:200]}): check data.train, tokenizer.*"
