"""Predictions of many runs on the same instances, read from a study or from the paper's release."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlc_jax.core.errors import InputError
from tlc_jax.core.files import local_copy, read_json
from tlc_jax.statistics.records import Answers, Seeds

_RELEASED = re.compile(r"s(?P<size>[^/]+?)p(?P<p>\d+)f(?P<f>\d+)epoch(?P<e>\d+)over3\.tsv")


@dataclasses.dataclass(frozen=True)
class Instances:
    """What the runs were asked.

    Attributes:
      ids: [N] ids of the instances.
      labels: int [N] right classes.
      texts: texts by instance where they are known, otherwise empty.
      classes: names of the classes where they are known, otherwise empty.
    """

    ids: np.ndarray
    labels: np.ndarray
    texts: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def unique(self) -> np.ndarray:
        """Which instances have texts that occur once: bool [N]; all where texts are unknown.

        Zhong et al. drop every input that occurs more than once, all of its copies.
        """
        if not self.texts:
            return np.ones(len(self), bool)
        seen: dict[tuple[str, ...], int] = {}
        for text in self.texts:
            seen[text] = seen.get(text, 0) + 1
        return np.array([seen[text] == 1 for text in self.texts])


@dataclasses.dataclass(frozen=True)
class Family:
    """The runs of one model: seeds of pretraining, and of finetuning within each of them.

    Attributes:
      name: of the model, such as "2x128 quantize:4".
      probabilities: float32 [N, P, F, E, C] of N instances, P pretraining seeds, F finetuning
        seeds, E checkpoints and C classes.
      instances: the instances, in the same order.
      trained: the model that was trained, such as "2x128", of which the family is a version; ""
        where families share no runs.
      seeds: seeds of pretraining and of finetuning, in the order of their axes.
    """

    name: str
    probabilities: np.ndarray
    instances: Instances
    trained: str = ""
    seeds: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    def correct(self) -> np.ndarray:
        """Whether each run is right at its last checkpoint: bool [N, P, F]."""
        answers_NxPxF = self.probabilities[:, :, :, -1].argmax(-1)
        return answers_NxPxF == self.instances.labels[:, None, None]

    def correct_by_checkpoint(self) -> np.ndarray:
        """Whether each run is right at each checkpoint: bool [N, P, F, E]."""
        return self.probabilities.argmax(-1) == self.instances.labels[:, None, None, None]

    def take(self, which: np.ndarray) -> Family:
        """The family on some of its instances: bool [N] or int indices."""
        texts = self.instances.texts
        kept = tuple(texts[i] for i in np.arange(len(self.instances))[which]) if texts else ()
        ids, labels = self.instances.ids[which], self.instances.labels[which]
        instances = dataclasses.replace(self.instances, ids=ids, labels=labels, texts=kept)
        return dataclasses.replace(
            self, probabilities=self.probabilities[which], instances=instances
        )


def from_study(workdir: Path, rows: Iterable[Mapping[str, Any]], split: str) -> list[Family]:
    """The families of a study: one per size and recipe, smallest model first.

    Args:
      workdir: the study.
      rows: lines of its results.jsonl about one task, and `checkpoint_rows`.
      split: name of the validation split.

    Raises:
      InputError: predictions are missing, runs are missing from the grid of seeds, or the runs
        answered different instances.
    """
    groups: dict[tuple[int, str, str], dict[tuple[int, int], Path]] = {}
    for row in rows:
        path = workdir / "jobs" / row["job"] / "predictions" / row.get("folder", "")
        size = f"{row['layers']}x{row['hidden']}"
        seeds = int(row.get("pretrain_seed") or 0), int(row["seed"])
        groups.setdefault((int(row["params"]), size, row["recipe"]), {})[seeds] = (
            path / f"{split}.npz"
        )
    return [_family(size, recipe, paths) for (_, size, recipe), paths in sorted(groups.items())]


def checkpoint_rows(workdir: Path, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the checkpoints whose predictions finetuning kept (eval.keep_predictions).

    Args:
      workdir: the study.
      rows: the lines of its results.jsonl.

    Returns:
      A row for each dense model and step, with the recipe "dense@STEP" and the folder of its
      predictions, in the order of the steps.
    """
    found = []
    for row in rows:
        if row["recipe"] == "dense":
            # The job of a dense model compresses nothing: it starts at the finetuned one.
            start = read_json(workdir / "jobs" / row["job"] / "config.json")["init"]["from"]
            job = Path(start).name
            for folder in (workdir / "jobs" / job / "predictions").glob("step-*"):
                step = int(folder.name.removeprefix("step-"))
                of_step = {"job": job, "recipe": f"dense@{step}", "folder": folder.name}
                found.append((step, {**row, **of_step}))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _family(size: str, recipe: str, paths: Mapping[tuple[int, int], Path]) -> Family:
    name = f"{size} {recipe}"
    outer = sorted({pretraining for pretraining, _ in paths})
    inner = sorted({finetuning for _, finetuning in paths})
    missing = [(p, f) for p in outer for f in inner if (p, f) not in paths]
    if missing:
        raise InputError(
            f"{name} lacks the run of pretraining seed {missing[0][0]} and finetuning seed "
            f"{missing[0][1]} ({len(missing)} missing): finish the study first"
        )
    runs, instances = [], None
    for seeds in ((p, f) for p in outer for f in inner):
        path = paths[seeds]
        answered, probabilities = read(path)
        if instances is None:
            instances, classes = answered, probabilities.shape[1]
        require_same_instances(instances, answered, str(path))
        if probabilities.shape[1] != classes:
            raise InputError(f"{path} has {probabilities.shape[1]} classes, others have {classes}")
        runs.append(probabilities.astype(np.float32))
    assert instances is not None
    stacked = np.stack(runs, axis=1)
    shape = (len(instances), len(outer), len(inner), 1, classes)
    both = tuple(outer), tuple(inner)
    return Family(name, stacked.reshape(shape), instances, size, both)


def read(path: Path) -> tuple[Instances, np.ndarray]:
    """The instances of a file in predictions/, and the probabilities [N, C] of one run.

    Raises:
      InputError: the file does not exist, or it is damaged.
    """
    try:
        with local_copy(path) as local, np.load(local, allow_pickle=False) as file:
            found, probabilities = Instances(file["ids"], file["labels"]), file["probabilities"]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: the job kept no predictions") from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a file of predictions ({error})") from error
    check_probabilities(probabilities, str(path))
    return found, probabilities


class KeptAnswers(Mapping[Seeds, Answers]):
    """The answers of the runs that kept predictions, read when they are first asked for."""

    def __init__(self, paths: Mapping[Seeds, Path]):
        """Takes the files of predictions, of which some may not exist."""
        self._paths = {seeds: path for seeds, path in paths.items() if path.is_file()}
        self._read: dict[Seeds, Answers] = {}

    def __getitem__(self, seeds: Seeds) -> Answers:
        if seeds not in self._read:
            instances, probabilities = read(self._paths[seeds])
            known = instances.labels >= 0
            correct = probabilities[known].argmax(1) == instances.labels[known]
            self._read[seeds] = Answers(instances.ids[known], correct)
        return self._read[seeds]

    def __iter__(self) -> Iterator[Seeds]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def require_same_instances(first: Instances, other: Instances, name: str) -> None:
    """Refuses runs that cannot be compared instance by instance.

    Raises:
      InputError: the ids or labels differ, or their order does.
    """
    same = np.array_equal(first.ids, other.ids) and np.array_equal(first.labels, other.labels)
    if not same:
        raise InputError(
            f"{name} answers other instances, or in another order, than the other runs"
        )


def check_probabilities(probabilities: np.ndarray, name: str) -> None:
    """Refuses rows that are not probabilities.

    Raises:
      InputError: naming the first bad row.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise InputError(f"{name}: probabilities are [instance, class], not {probabilities.shape}")
    bad = ~np.isfinite(probabilities).all(1) | (probabilities < -1e-6).any(1)
    bad |= np.abs(probabilities.sum(1, dtype=np.float64) - 1) > 1e-2  # the release rounds
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{name}: row {first} is not a list of probabilities that sum to 1: "
            f"{probabilities[first].tolist()}"
        )


def from_release(folder: Path, sizes: Sequence[str] = ()) -> list[Family]:
    """The families of a folder in the layout in which Zhong et al. released their predictions.

    `data.json` has the instances under `predict` (`guid`, `label`, `text_a`, `text_b`) and the
    classes under `label_list`; `results/sSIZEpPfFepochEover3.tsv` has one row of class
    probabilities per instance. Pickles of the release are not read: loading one can execute code.

    Args:
      folder: the folder of one task (or fold).
      sizes: names of sizes, in ascending order; empty takes all, in alphabetical order.

    Raises:
      InputError: a file is missing, damaged or of another length.
    """
    instances, classes = _released_instances(folder / "data.json")
    found: dict[str, dict[tuple[int, int, int], Path]] = {}
    for path in sorted((folder / "results").glob("*.tsv")):
        if match := _RELEASED.fullmatch(path.name):
            seeds = int(match["p"]), int(match["f"]), int(match["e"])
            found.setdefault(match["size"], {})[seeds] = path
    if not found:
        raise InputError(f"{folder}/results has no file sSIZEpPfFepochEover3.tsv")
    absent = [size for size in sizes if size not in found]
    if absent:
        raise InputError(f"{folder}/results has no size {absent[0]}; it has {', '.join(found)}")
    return [
        _released_family(size, found[size], instances, classes) for size in sizes or sorted(found)
    ]


def _released_instances(path: Path) -> tuple[Instances, int]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        items, names = data["predict"], list(data["label_list"])
        labels = np.array([names.index(item["label"]) for item in items])
        texts = [tuple(filter(None, (item["text_a"], item.get("text_b")))) for item in items]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: it holds the instances of a release") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not the data.json of a release ({error!r})") from error
    ids = np.array([item["guid"] for item in items])
    return Instances(ids, labels, tuple(texts), tuple(names)), len(names)


def _released_family(
    size: str, paths: Mapping[tuple[int, int, int], Path], instances: Instances, classes: int
) -> Family:
    axes = [sorted({seeds[level] for seeds in paths}) for level in range(3)]
    shape = (len(instances), *(len(axis) for axis in axes), classes)
    probabilities = np.empty(shape, np.float32)
    for p, pretraining in enumerate(axes[0]):
        for f, finetuning in enumerate(axes[1]):
            for e, epoch in enumerate(axes[2]):
                name = f"s{size}p{pretraining}f{finetuning}epoch{epoch}over3.tsv"
                path = paths.get((pretraining, finetuning, epoch))
                if path is None:
                    raise InputError(f"{name} is missing, which other runs of this size have")
                probabilities[:, p, f, e] = _released_table(path, len(instances), classes)
    return Family(size, probabilities, instances)


def _released_table(path: Path, rows: int, classes: int) -> np.ndarray:
    try:
        table = np.loadtxt(path, delimiter="\t", ndmin=2)
    except ValueError as error:
        raise InputError(f"{path} has a bad row: {str(error).splitlines()[0]}") from error
    if table.shape != (rows, classes):
        raise InputError(
            f"{path} is {table.shape[0]} rows x {table.shape[1]} classes, not {rows} x {classes} "
            "as in data.json"
        )
    check_probabilities(table, str(path))
    return table
