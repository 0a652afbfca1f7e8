"""A glue/mnli made by TFDS's own builder machinery, in its own form on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.text import glue

Row = tuple[str, str, int]


def build_mnli(folder: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    """Writes splits of (premise, hypothesis, label) into a TFDS data directory."""
    with tfds.core.registered.skip_registration():

        class Made(glue.Glue):
            name = "glue"

            def _split_generators(self, _: Any) -> dict[str, Any]:
                return {split: self._generate_examples(rows) for split, rows in splits.items()}

            def _generate_examples(
                self, rows: Sequence[Row]
            ) -> Iterator[tuple[int, dict[str, Any]]]:
                for idx, (premise, hypothesis, label) in enumerate(rows):
                    yield (
                        idx,
                        {"premise": premise, "hypothesis": hypothesis, "label": label, "idx": idx},
                    )

    Made(config="mnli", data_dir=folder, file_format="array_record").download_and_prepare()
