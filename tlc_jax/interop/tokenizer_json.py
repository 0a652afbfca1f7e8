"""A tokenizer as the files that Hugging Face's libraries read. An imported one is one of them
already.

The ids of one that was trained here are ours for any text, with two exceptions that lie in what a
`tokenizer.json` can say:

* A U+2581 in the text, which ours encodes by its bytes, is taken for a space, as by every tokenizer
of this kind there. * A special piece spelled out in the text, such as <mask>, stands for itself,
which filling masks relies on. With
  `split_special_tokens=True` it is text, as for ours.

Where two divisions of a word are as likely, such as X XXX and XXX X, theirs may be the other one,
since it adds up scores in 64 bits and ours in 32: so it was in 6 of 100,000 lines of documentation.
"""

from __future__ import annotations

import json
from typing import Any

from tlc_jax.data.sentencepiece_tokenizer import SPECIAL_PIECES, SentencePieceTokenizer
from tlc_jax.data.tokenizer import Tokenizer
from tlc_jax.data.vocabulary import BOS, EOS, FIRST_ORDINARY, MASK, UNK

_SPACE_SIGN = "\u2581"
_BYTES = range(FIRST_ORDINARY, FIRST_ORDINARY + 256)
_NEVER_FOUND = -1e6
"""The score of pieces that are not to be found in text: any way of spelling one of their names
costs less.
"""

_UNKNOWN = (SPECIAL_PIECES[UNK], "[UNK]")


def tokenizer_files(tokenizer: Tokenizer, length: int, token_types: int) -> dict[str, bytes]:
    """The contents of tokenizer.json, tokenizer_config.json and special_tokens_map.json, by file
    name.

    Args:
      tokenizer: of either kind.
      length: positions of the model.
      token_types: kinds of segments that it has embeddings for, or 0.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        model = _json(_trained_here(tokenizer, 1 if token_types > 1 else 0))
    else:
        model = tokenizer.model
    special = _special_pieces(tokenizer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "model_input_names": [
            "input_ids",
            *(["token_type_ids"] if token_types > 1 else []),
            "attention_mask",
        ],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return {
        "tokenizer.json": model,
        "tokenizer_config.json": _json(settings),
        "special_tokens_map.json": _json(special),
    }


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _special_pieces(tokenizer: Tokenizer) -> dict[str, str]:
    """Special pieces by the names of their roles in transformers."""
    ids = tokenizer.special
    unknown = next(piece for piece in map(tokenizer.piece, ids.all) if piece in _UNKNOWN)
    start, end = tokenizer.piece(ids.start), tokenizer.piece(ids.end)
    return {
        "unk_token": unknown,
        "pad_token": tokenizer.piece(ids.padding),
        "mask_token": tokenizer.piece(ids.mask),
        "bos_token": start,
        "cls_token": start,
        "eos_token": end,
        "sep_token": end,
    }


def _trained_here(tokenizer: SentencePieceTokenizer, second_type: int) -> dict[str, Any]:
    """tokenizer.json; `second_type` is the token type of a pair's second text."""
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    start, end = ({"SpecialToken": {"id": SPECIAL_PIECES[id], "type_id": 0}} for id in (BOS, EOS))
    last = {"SpecialToken": {"id": SPECIAL_PIECES[EOS], "type_id": second_type}}
    first, second = (
        {"Sequence": {"id": id, "type_id": type}} for id, type in (("A", 0), ("B", second_type))
    )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id) for id in range(FIRST_ORDINARY)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE_SIGN},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                # Metaspace puts its sign in front of a text only where there is none, and ours
                # always does: so the spaces of the text are written as the sign already, and the
                # one in front is made by a plain space.
                _metaspace(" ", "first", split=False),
                _metaspace(_SPACE_SIGN, "never", split=True),
                *(
                    {
                        "type": "Split",
                        "pattern": {"String": c},
                        "behavior": "Isolated",
                        "invert": False,
                    }
                    for c in _unknown_in_names(pieces)
                ),
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, end],
            "pair": [start, first, end, second, last],
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
            "vocab": [
                [piece, _NEVER_FOUND if id < _BYTES.stop else tokenizer.score(id)]
                for id, piece in enumerate(pieces)
            ],
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


def _unknown_in_names(pieces: list[str]) -> list[str]:
    """Characters of the names of special and byte pieces that are no pieces themselves.

    Their score is still above that of an unknown character, so a name with such a character would
    be found in text. No piece has it either, and so nothing is lost where words are divided there.
    """
    names = {character for piece in pieces[: _BYTES.stop] for character in piece}
    return sorted(names - set(pieces[_BYTES.stop :]))
