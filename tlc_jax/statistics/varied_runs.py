"""The training runs of the points of study.vary, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlc_jax.statistics.curves import Curve
from tlc_jax.statistics.frontier import group
from tlc_jax.statistics.records import Study

# What may differ between runs that are compared: size and seed, and where files are kept.
_SECTIONS = ("data", "tokenizer", "model", "objective", "optimizer", "budget")
_FOLDERS = ("data.cache", "budget.benchmarks")

Runs = dict[tuple[int, int], list[Curve]]  # by layers and hidden, the smallest size first


def by_shape(curves: Sequence[Curve]) -> Runs:
    """Groups curves by layers and hidden: another setting may change the number of parameters."""
    ordered = sorted(curves, key=lambda curve: curve.size)
    return group(ordered, lambda curve: (curve.size.layers, curve.size.hidden))


def settings(study: Study, curve: Curve) -> dict[str, Any]:
    """The settings of a run that can matter to its losses, by name such as `data.subsample`."""
    config = study.configs.get(curve.job, {})
    return {
        f"{section}.{name}": value
        for section in _SECTIONS
        for name, value in config.get(section, {}).items()
        if f"{section}.{name}" not in _FOLDERS
    }


def changed_settings(study: Study, runs: Runs) -> set[str]:
    """Names of the settings in which runs differ from those of the base that have their shape."""
    base = by_shape(study.curves)
    changed: set[str] = set()
    for shape in runs.keys() & base.keys():
        own, its = settings(study, runs[shape][0]), settings(study, base[shape][0])
        changed |= {name for name in own if own[name] != its.get(name)}
    return changed
