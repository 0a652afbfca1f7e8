"""Scores of translations: sacreBLEU, chrF, tokenized BLEU, and BLEU under teacher forcing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

ORDERS = 4
"""Longest n-grams that every BLEU here counts."""


def score(
    hypotheses: Sequence[str], references: Sequence[str], language: str = "fr"
) -> dict[str, Any]:
    """Corpus scores of raw (detokenized) lines, cased, from 0 to 100.

    Args:
      hypotheses: lines to score.
      references: one reference for each hypothesis.
      language: language of the Moses tokenizer.

    Returns:
      `bleu`: sacreBLEU, tokenized by 13a (Post, 2018), with its `bleu_signature`.
      `chrf`: chrF2 with sacreBLEU's defaults (Popović, 2015), with its `chrf_signature`.
      `bleu_tokenized`: the score of tensor2tensor's get_ende_bleu.sh: Moses tokenizer,
        `split_compounds`, and BLEU without smoothing as in multi-bleu.perl, which is 0 where no
        4-gram matches.
    """
    _check(hypotheses, references, "hypotheses")
    # Half a second to import, and `approx_bleu` needs neither.
    from sacrebleu.metrics import BLEU, CHRF
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(language)

    def tokenized(lines: Sequence[str]) -> list[str]:
        # As in the script: characters special to Moses are escaped (' is one token, &apos;), which
        # changes no count since both sides are, and hyphens stay in words for `split_compounds`.
        return [
            split_compounds(tokenizer.tokenize(line, return_str=True, escape=True))
            for line in lines
        ]

    bleu, chrf = BLEU(), CHRF()
    # Without `force` sacreBLEU warns about tokenized text.
    multi_bleu = BLEU(tokenize="none", smooth_method="none", force=True)
    words = tokenized(hypotheses), [tokenized(references)]
    return {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "chrf_signature": str(chrf.get_signature()),
        "bleu_tokenized": multi_bleu.corpus_score(*words).score,
    }


def split_compounds(line: str) -> str:
    """`rich-text` to `rich ##AT##-##AT## text`, as get_ende_bleu.sh does in Perl."""
    # Its substitution s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g works on bytes, and a match uses up those
    # beside its hyphen: after a one-byte letter the next hyphen stays (`a-t-il` is split once),
    # after a two-byte one it does not (`vis-à-vis` is split twice).
    return re.sub(rb"(\S)-(\S)", rb"\1 ##AT##-##AT## \2", line.encode()).decode()


def approx_bleu(predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> float:
    """`approx_bleu` of tensor2tensor, 0 to 1: BLEU of the likeliest tokens given the true prefix.

    It is not the BLEU of decoded text: it has no beam, errors do not add up, and subwords stand for
    words. Counts are pooled over the whole set, where tensor2tensor averages the BLEU of batches.

    Args:
      predictions: token ids of each row, without padding.
      references: true token ids of each row, without padding.
    """
    _check(predictions, references, "predictions")
    # Numbers of Python hash faster than those of NumPy.
    ours, theirs = (
        [np.asarray(row).tolist() for row in rows] for rows in (predictions, references)
    )
    predicted_length, reference_length = sum(map(len, ours)), sum(map(len, theirs))
    if not predicted_length:
        return 0.0
    log_precisions, smooth = 0.0, 1.0
    for order in range(1, ORDERS + 1):
        possible = matched = 0
        for prediction, reference in zip(ours, theirs, strict=True):
            counts = _ngrams(prediction, order)
            matched += (counts & _ngrams(reference, order)).total()
            possible += counts.total()
        # As in tensor2tensor, an order that no row is long enough for has a precision of 1.
        if not possible:
            continue
        # The first order without a match counts 1 / 2 match, the next one 1 / 4, and so on.
        if not matched:
            smooth *= 2
        log_precisions += math.log(matched / possible if matched else 1 / (smooth * possible))
    brevity = min(1.0, math.exp(1 - reference_length / predicted_length))
    return brevity * math.exp(log_precisions / ORDERS)


def _ngrams(tokens: list[int], order: int) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _check(ours: Sequence[Any], references: Sequence[Any], name: str) -> None:
    if len(ours) != len(references):
        raise ValueError(f"{len(ours)} {name} for {len(references)} references")
    if len(ours) == 0:
        raise ValueError(f"no {name} to score")
