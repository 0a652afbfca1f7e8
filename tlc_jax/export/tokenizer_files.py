"""A tokenizer of ours as the files that Hugging Face's libraries read, written without them.

The ids are ours for any text, with two exceptions that lie in what a `tokenizer.json` can say:

* A U+2581 in the text, which ours encodes by its bytes, is taken for a space, as by every tokenizer of this kind there.
* A special piece spelled out in the text, such as <mask>, stands for itself, which filling masks relies on. With
  `split_special_tokens=True` it is text, as for ours.

Where two divisions of a word are as likely to the last digits, theirs may choose the other one: it adds up scores in
64 bits, ours in 32.
"""

from __future__ import annotations

from typing import Any

from tlc_jax.data.tokenizer import SPECIAL_PIECES, Tokenizer
from tlc_jax.data.vocabulary import BOS, EOS, FIRST_ORDINARY, MASK, PAD, UNK

_SPACE_SIGN = "\u2581"
_BYTES = range(FIRST_ORDINARY, FIRST_ORDINARY + 256)
_NEVER_FOUND = -1e6
"""The score of pieces that are not to be found in text: any way of spelling one of their names costs less."""

_FIRST, _SECOND = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}


def tokenizer_files(tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """The contents, as JSON, of tokenizer.json, tokenizer_config.json and special_tokens_map.json, by file name.

    Args:
      tokenizer: ours.
      length: positions of the model.
    """
    named = {"pad_token": PAD, "unk_token": UNK, "bos_token": BOS, "eos_token": EOS, "mask_token": MASK}
    special = {name: SPECIAL_PIECES[id] for name, id in named.items()}
    special |= {"cls_token": SPECIAL_PIECES[BOS], "sep_token": SPECIAL_PIECES[EOS]}
    return {
        "tokenizer.json": _tokenizer_json(tokenizer),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **special,
        },
        "special_tokens_map.json": special,
    }


def _tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    pieces = tokenizer.pieces()
    start, end = ({"SpecialToken": {"id": SPECIAL_PIECES[id], "type_id": 0}} for id in (BOS, EOS))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id) for id in range(FIRST_ORDINARY)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE_SIGN},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                # Metaspace puts its sign in front of a text only where there is none, and ours always does: so the
                # spaces of the text are written as the sign already, and the one in front is made by a plain space.
                _metaspace(" ", "first", split=False),
                _metaspace(_SPACE_SIGN, "never", split=True),
                *(
                    {"type": "Split", "pattern": {"String": c}, "behavior": "Isolated", "invert": False}
                    for c in _unknown_in_names(pieces)
                ),
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, _FIRST, end],
            "pair": [start, _FIRST, end, _SECOND, end],
            "special_tokens": {
                piece: {"id": piece, "ids": [id], "tokens": [piece]}
                for id, piece in ((BOS, SPECIAL_PIECES[BOS]), (EOS, SPECIAL_PIECES[EOS]))
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE_SIGN}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": UNK,
            "byte_fallback": True,
            "vocab": [[piece, _NEVER_FOUND if id < _BYTES.stop else score] for id, (piece, score) in enumerate(pieces)],
        },
    }


def _metaspace(sign: str, prepend: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": sign, "prepend_scheme": prepend, "split": split}


def _added_token(id: int) -> dict[str, Any]:
    return {
        "id": id,
        "content": SPECIAL_PIECES[id],
        "single_word": False,
        "lstrip": id == MASK,  # a masked word's piece begins with the space before it
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _unknown_in_names(pieces: list[tuple[str, float]]) -> list[str]:
    """Characters of the names of special and byte pieces that are no pieces themselves.

    Their score is still above that of an unknown character, so a name with such a character would be found in text. No
    piece has it either, and so nothing is lost where words are divided there.
    """
    known = {piece for piece, _ in pieces[_BYTES.stop :]}
    names = {c for piece, _ in pieces[: _BYTES.stop] for c in piece}
    return sorted(names - known)
