"""A wmt14_translate/fr-en made by TFDS's own builder machinery, in its own form on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.translate import wmt14


def build_wmt14(folder: Path, splits: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Writes splits of (English, French) into a TFDS data directory."""
    with tfds.core.registered.skip_registration():

        class Made(wmt14.Wmt14Translate):
            name = "wmt14_translate"

            def _split_generators(self, _: Any) -> dict[str, Any]:
                return {split: self._generate_examples(rows) for split, rows in splits.items()}

            def _generate_examples(
                self, rows: Sequence[tuple[str, str]]
            ) -> Iterator[tuple[int, dict[str, str]]]:
                for number, (english, french) in enumerate(rows):
                    yield number, {"en": english, "fr": french}

    Made(config="fr-en", data_dir=folder, file_format="array_record").download_and_prepare()
