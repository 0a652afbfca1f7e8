"""Scores of translations: sacreBLEU, chrF, the tokenised BLEU of the older literature, and teacher-forced BLEU."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

ORDERS = 4  # n-grams of 1 to 4 tokens, as in every BLEU here


def score(
    hypotheses: Sequence[str], references: Sequence[str], language: str = "fr"
) -> dict[str, Any]:
    """Corpus scores of raw (detokenised) lines, all 0..100 and cased, with one reference to a hypothesis.

    `bleu`: sacreBLEU, tokenised by 13a (Post, 2018), with its `bleu_signature`.
    `chrf`: chrF2, sacreBLEU's defaults (Popović, 2015), with its `chrf_signature`.
    `bleu_tokenized`: tokenised BLEU with compounds split, as tensor2tensor's get_ende_bleu.sh: Moses tokeniser for
    `language`, `split_compounds`, then multi-bleu.perl, that is BLEU without smoothing: 0 where no 4-gram matches.
    """
    _check(hypotheses, references, "hypotheses")
    # Half a second to import, and `approx_bleu` needs neither.
    from sacrebleu.metrics import BLEU, CHRF
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(language)

    def tokenized(lines: Sequence[str]) -> list[str]:
        # As the script calls it: characters special to Moses are escaped (' is one token, &apos;), which changes no
        # count as both sides are, and hyphens stay inside words for `split_compounds`.
        return [
            split_compounds(tokenizer.tokenize(line, return_str=True, escape=True))
            for line in lines
        ]

    bleu, chrf = BLEU(), CHRF()
    multi_bleu = BLEU(
        tokenize="none", smooth_method="none", force=True
    )  # force: tokenised text is meant, no warning
    return {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "chrf_signature": str(chrf.get_signature()),
        "bleu_tokenized": multi_bleu.corpus_score(
            tokenized(hypotheses), [tokenized(references)]
        ).score,
    }


def split_compounds(line: str) -> str:
    """`rich-text` to `rich ##AT##-##AT## text`: the substitution `s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g` of Perl.

    Perl reads bytes there, and a match uses up the bytes beside its hyphen: after a one-byte letter the next hyphen
    stays (`a-t-il` is split once), after a two-byte one it does not (`vis-à-vis` is split twice).
    """
    return re.sub(rb"(\S)-(\S)", rb"\1 ##AT##-##AT## \2", line.encode()).decode()


def approx_bleu(predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> float:
    """tensor2tensor's `approx_bleu`, 0..1: BLEU over subword ids of the likeliest tokens given the true prefix.

    Not the BLEU of decoded text: no beam, no errors that add up, subwords for words. Counts are pooled over the whole
    set; tensor2tensor averages the BLEU of batches and counts their padding, which must not be in the rows here.
    Orders without a match are smoothed as in its `compute_bleu`: 1 / (2 possible), the next such 1 / (4 possible), ...
    """
    _check(predictions, references, "predictions")
    matches, possible = [0] * ORDERS, [0] * ORDERS
    predicted_length = reference_length = 0
    for prediction, reference in zip(predictions, references, strict=True):
        ours, theirs = np.asarray(prediction).tolist(), np.asarray(reference).tolist()
        predicted_length += len(ours)
        reference_length += len(theirs)
        for order in range(ORDERS):
            counts = _ngrams(ours, order + 1)
            matches[order] += (counts & _ngrams(theirs, order + 1)).total()
            possible[order] += counts.total()
    if not predicted_length:
        return 0.0
    log_precisions, smooth = 0.0, 1.0
    for matched, of in zip(matches, possible, strict=True):
        if not of:  # no row is that long: the order counts as a precision of 1, as there
            continue
        if not matched:
            smooth *= 2
        log_precisions += math.log(matched / of if matched else 1 / (smooth * of))
    brevity = min(1.0, math.exp(1 - reference_length / predicted_length))
    return brevity * math.exp(log_precisions / ORDERS)


def _ngrams(tokens: list[int], order: int) -> Counter[tuple[int, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _check(ours: Sequence[Any], references: Sequence[Any], name: str) -> None:
    if len(ours) != len(references):
        raise ValueError(f"{len(ours)} {name} for {len(references)} references")
    if len(ours) == 0:
        raise ValueError(f"no {name} to score")
