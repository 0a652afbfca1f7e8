"""Writes a tokenizer as the files that Hugging Face's libraries read.

An imported tokenizer is written as it was read. One that was trained here gives our ids for any
text, with two exceptions that lie in what a `tokenizer.json` can express:

* A U+2581 in the text, which ours encodes by its bytes, is read as a space, as by every tokenizer
  of this kind there.
* A special piece spelled out in the text, such as <mask>, stands for itself, which filling masks
  relies on. With `split_special_tokens=True` it is text, as for ours.

Where two divisions of a word are equally likely, such as X XXX and XXX X, theirs may differ, since
it adds scores in 64 bits and ours in 32: this happened in 6 of 100,000 lines of documentation.
"""

from __future__ import annotations

import json
from typing import Any

from tlc_jax.data.sentencepiece_tokenizer import SPECIAL_PIECES, SentencePieceTokenizer
from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY, MASK, UNK, Tokenizer

_SPACE_SIGN = "\u2581"
_BYTES = range(FIRST_ORDINARY, FIRST_ORDINARY + 256)
# The score of pieces that must not be found in text: any other way to spell their names costs less.
_NEVER_FOUND = -1e6
_UNKNOWN = (SPECIAL_PIECES[UNK], "[UNK]")


def tokenizer_files(
    tokenizer: Tokenizer, length: int, token_types: int, start: bool = True
) -> dict[str, bytes]:
    """The contents of tokenizer.json, tokenizer_config.json and special_tokens_map.json by name.

    Args:
      tokenizer: tokenizer of either kind.
      length: number of positions of the model.
      token_types: number of token types that the model has embeddings for, or 0.
      start: whether a text begins with <s>; a translator's sources do not.
    """
    pairs = token_types > 1
    if isinstance(tokenizer, SentencePieceTokenizer):
        model = _json(_trained_here(tokenizer, int(pairs), start))
    else:
        model = tokenizer.model
    ids = tokenizer.special
    roles = {"pad": ids.padding, "mask": ids.mask}
    roles |= {"bos": ids.start, "cls": ids.start, "eos": ids.end, "sep": ids.end}
    unknown = next(piece for piece in map(tokenizer.piece, ids.all) if piece in _UNKNOWN)
    pieces = {f"{role}_token": tokenizer.piece(id) for role, id in roles.items()}
    special = {"unk_token": unknown, **pieces}
    inputs = ["input_ids", *(["token_type_ids"] if pairs else []), "attention_mask"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "model_input_names": inputs,
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


def _trained_here(
    tokenizer: SentencePieceTokenizer, second_type: int, begins: bool
) -> dict[str, Any]:
    """Content of tokenizer.json; `second_type` is the token type of a pair's second text."""
    pieces = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
    ordinary = range(_BYTES.stop, len(pieces))
    scores = [_NEVER_FOUND] * _BYTES.stop + [tokenizer.score(id) for id in ordinary]
    # An unknown character scores even less than special and byte pieces, so a name of these that
    # contains one would be found in text. No other piece contains such a character, so nothing is
    # lost where words are divided there.
    characters = {character for piece in pieces[: _BYTES.stop] for character in piece}
    unknown = sorted(characters - set(pieces[_BYTES.stop :]))
    start, end = SPECIAL_PIECES[BOS], SPECIAL_PIECES[EOS]
    single = [{"Sequence": {"id": "A", "type_id": 0}}, _special(end, 0)]
    if begins:
        single.insert(0, _special(start, 0))
    second = [{"Sequence": {"id": "B", "type_id": second_type}}, _special(end, second_type)]
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    splits = [{**split, "pattern": {"String": sign}} for sign in unknown]
    # Metaspace puts its sign in front of a text only if the text does not begin with one, but ours
    # always does. So the text's own spaces are written as the sign first, and a plain space makes
    # the one in front.
    spaces = [_metaspace(" ", "first", split=False), _metaspace(_SPACE_SIGN, "never", split=True)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id) for id in range(FIRST_ORDINARY)],
        "normalizer": _replace(" ", _SPACE_SIGN),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": spaces + splits},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single + second,
            "special_tokens": {
                piece: {"id": piece, "ids": [id], "tokens": [piece]}
                for id, piece in ((BOS, start), (EOS, end))
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                _replace(_SPACE_SIGN, " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": UNK,
            "byte_fallback": True,
            "vocab": list(zip(pieces, scores, strict=True)),
        },
    }


def _special(piece: str, type_id: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": piece, "type_id": type_id}}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def _metaspace(sign: str, prepend: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": sign, "prepend_scheme": prepend, "split": split}


def _added_token(id: int) -> dict[str, Any]:
    return {
        "id": id,
        "content": SPECIAL_PIECES[id],
        "single_word": False,
        "lstrip": id == MASK,  # a masked word's piece includes the space before it
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
