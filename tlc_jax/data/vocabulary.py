"""Ids of special pieces: those that the tokenizers trained here have, and how any tokenizer tells its own."""

from __future__ import annotations

import dataclasses

import numpy as np

PAD, UNK, BOS, EOS, MASK = range(5)
FIRST_ORDINARY = 5
"""All ids from here on are text (byte pieces included); those below are never predicted nor drawn."""


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The special pieces of a tokenizer.

    Attributes:
      padding: after the ends of rows.
      start: before a text or a pair.
      between: what stands between the two texts of a pair.
      end: after a text or a pair, and after every document of packed rows.
      mask: in place of a token that is to be predicted.
      all: every special id, ascending; these are never predicted nor drawn.
    """

    padding: int
    start: int
    between: tuple[int, ...]
    end: int
    mask: int
    all: tuple[int, ...]


OURS = SpecialIds(PAD, BOS, (EOS,), EOS, MASK, tuple(range(FIRST_ORDINARY)))
"""Those of the tokenizers trained here."""


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrowest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
