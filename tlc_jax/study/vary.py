"""The axes of a study: settings of one stage that it varies, and the points that it runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from tlc_jax.config import Config, Study, to_dict
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean

Settings = Mapping[str, Any]
Point = dict[str, str]  # the value of each axis

_TRAINING = ("data", "model", "budget", "optimizer", "eval", "checkpoint", "impl")
STAGES = {
    "pretrain": (*_TRAINING, "tokenizer", "objective"),
    "checkpoint": ("init",),
    "finetune": (*_TRAINING, "task"),
    "compress": ("compress", "data", "budget", "optimizer", "eval", "checkpoint", "decode", "impl"),
    "translate": (*_TRAINING, "tokenizer", "objective", "decode"),
}
"""What an axis may change, with the settings that matter there."""
_GRID = (
    "sizes",
    "encoders",
    "translators",
    "pretrain_seeds",
    "seeds",
    "tasks",
    "recipes",
    "translator_recipes",
)
"""The settings of a study that an axis may narrow."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a study.

    Attributes:
      name: its name.
      stage: the jobs that it changes: a key of STAGES.
      values: partial configs by name of the value. The base comes first and is empty.
      grid: what of the study its values other than the base run, by name of the setting.
    """

    name: str
    stage: str
    values: Mapping[str, Settings]
    grid: Mapping[str, tuple[Any, ...]]

    @property
    def base(self) -> str:
        return next(iter(self.values))


class Axes:
    """The axes of a study.

    Attributes:
      all: the axes.
      points: points to run, the base first.
    """

    def __init__(self, study: Study):
        """Checks `study.vary` and `study.vary_points`.

        Raises:
          InputError: an axis, a value or a point is malformed.
        """
        self.all = [_axis(name, given, study) for name, given in study.vary.items()]
        self.base: Point = {axis.name: axis.base for axis in self.all}
        if study.vary_points:
            points: Iterable[Point] = map(self._parse, study.vary_points)
        else:
            names = [axis.name for axis in self.all]
            crossed = product(*(axis.values for axis in self.all))
            points = (dict(zip(names, values, strict=True)) for values in crossed)
        self.points = [self.base, *(point for point in points if point != self.base)]

    def _parse(self, text: str) -> Point:
        point = dict(self.base)
        for part in text.split(","):
            name, _, value = part.partition("=")
            known = [f"{axis.name}={value}" for axis in self.all for value in axis.values]
            if part not in known:
                raise InputError(
                    f"study.vary_points={text!r}: study.vary has no {part!r}"
                    f"{did_you_mean(part, known)}"
                )
            point[name] = value
        return point

    def concerning(self, point: Point, stages: Iterable[str]) -> Point:
        """The point with the axes of other stages at their base."""
        return {
            axis.name: point[axis.name] if axis.stage in stages else axis.base for axis in self.all
        }

    def changes(self, point: Point, stages: Iterable[str]) -> Iterator[tuple[str, Settings]]:
        """What the point changes at some stages: AXIS=VALUE, and the partial config."""
        for axis in self.all:
            if axis.stage in stages and (value := point[axis.name]) != axis.base:
                yield f"{axis.name}={value}", axis.values[value]

    def narrowed(self, study: Study, point: Point) -> Study:
        """The part of a study that a point runs: what the grids of its axes have in common."""
        for axis in self.all:
            if point[axis.name] != axis.base:
                kept: dict[str, Any] = {
                    name: (
                        {key: one for key, one in own.items() if key in wanted}
                        if isinstance(own := getattr(study, name), Mapping)
                        else tuple(one for one in own if one in wanted)
                    )
                    for name, wanted in axis.grid.items()
                }
                study = dataclasses.replace(study, **kept)
        # Twins from scratch go with their sizes.
        return dataclasses.replace(
            study, scratch=tuple(size for size in study.scratch if size in study.sizes)
        )

    def text(self, point: Point) -> str:
        """A point as study.vary_points has it, without axes at their base."""
        return ",".join(change for change, _ in self.changes(point, STAGES))


def _axis(name: str, given: Any, study: Study) -> Axis:
    where = f"study.vary.{name}"
    if not isinstance(given, Mapping):
        raise InputError(f"{where}={given!r} must hold a stage, and partial configs by name")
    stage = given.get("stage")
    if stage not in STAGES:
        raise InputError(
            f"{where}.stage={stage!r}: name what the axis changes, one of {', '.join(STAGES)}"
        )
    grid = _grid(f"{where}.grid", given.get("grid", {}), study)
    values = {value: own for value, own in given.items() if value not in ("stage", "grid")}
    for value, settings in values.items():
        # They are parts of names of folders and of study.vary_points.
        if not all(
            isinstance(word, str) and re.fullmatch(r"[\w+-]+", word) for word in (name, value)
        ):
            raise InputError(
                f"{where}, value {value!r}: names are words of letters, digits, _, + and -"
            )
        if not isinstance(settings, Mapping):
            raise InputError(f"{where}.{value}={settings!r} must be a partial config")
        for section in settings:
            if section not in STAGES[stage]:
                raise InputError(
                    f"{where}.{value} sets {section}, which is not a setting of stage {stage}"
                    f"{did_you_mean(section, STAGES[stage])}; it has {', '.join(STAGES[stage])}"
                )
    bases = [value for value, settings in values.items() if not settings]
    if len(bases) != 1 or len(values) < 2:
        raise InputError(
            f"{where}: one value, the base, must have no settings of its own, as in "
            f"'base': {{}}, and the others must; without any are: {', '.join(bases) or 'none'}"
        )

    def order(value: str) -> tuple[bool, float, str]:  # a ConfigDict orders numbers as words
        return value != bases[0], float(value) if value.isdecimal() else float("inf"), value

    return Axis(name, stage, {value: values[value] for value in sorted(values, key=order)}, grid)


def _grid(where: str, given: Any, study: Study) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}={given!r} must hold settings of study, such as sizes")
    for name, kept in given.items():
        if name not in _GRID:
            raise InputError(
                f"{where}.{name}: a grid has no such setting{did_you_mean(name, _GRID)}"
            )
        known = tuple(getattr(study, name))
        if not isinstance(kept, (tuple, list)) or any(one not in known for one in kept):
            raise InputError(
                f"{where}.{name}={kept!r} must be a tuple of values of study.{name}, which has "
                f"{', '.join(map(str, known)) or 'none'}"
            )
    return {name: tuple(kept) for name, kept in given.items()}


def undone(partial: Settings, config: Config) -> Iterator[str]:
    """Settings of a partial config that a resolved one has not, as "NAME: VALUE -> VALUE"."""
    for section, value in partial.items():
        resolved = getattr(config, section)
        wanted, given = {section: value}, {section: resolved}
        if prefix := f"{section}." if isinstance(value, Mapping) else "":
            wanted, given = value, to_dict(resolved)
        for name, one in wanted.items():
            same = given[name] == (tuple(one) if isinstance(one, list) else one)
            # A recipe may decide itself whether it compresses before finetuning.
            if not same and f"{prefix}{name}" != "compress.when":
                yield f"{prefix}{name}: {one} -> {given[name]}"


def gained(old: Settings, new: Settings) -> list[str]:
    """The axes, and values and grids of axes, of study.vary that may be new, as names of settings.

    A grid may change: results that are there stay.
    """
    axes = [f"study.vary.{name}" if name not in old else f"study.vary.{name}.grid" for name in new]
    return axes + [
        f"study.vary.{name}.{value}"
        for name in new
        if name in old
        for value in new[name]
        if value not in old[name]
    ]
