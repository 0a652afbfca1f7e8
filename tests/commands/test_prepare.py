from __future__ import annotations

import json
from pathlib import Path

from tlc_jax import config
from tlc_jax.commands import prepare


def test_prepare_says_what_the_cache_holds(tmp_path: Path) -> None:
    text = "".join(f"bas {n} dus {n * n} fin\n" + "\n" * (n % 3 == 0) for n in range(200))
    (tmp_path / "corpus.txt").write_text(text)
    settings = config.resolve({
        "data": {"train": f"files:{tmp_path}/corpus.txt", "length": 16},
        "tokenizer": {"vocab_size": 300},
    })  # fmt: skip
    first = prepare.run(settings, tmp_path / "run", {})
    again = prepare.run(settings, tmp_path / "run", {})
    facts = first["sources"]["train/corpus"]
    held = first["sources"]["valid/heldout"]
    assert facts["documents"] + held["documents"] == 68 and held["documents"] >= 1
    assert facts["bytes"] == facts["rows"] * 16 * 2
    assert 0 <= facts["tokens"] - facts["rows"] * 15 < 15 and facts["tokens_per_second"] > 0
    assert first["vocab_size"] == 300 and Path(first["tokenizer"]).exists()
    assert Path(first["cache"]) == tmp_path / "run" / "data"
    assert (facts["cached"], again["sources"]["train/corpus"]["cached"]) == (False, True)
    assert (first["train_rows"], first["valid_rows"]) == (facts["rows"], {"heldout": held["rows"]})
    json.dumps(first)
