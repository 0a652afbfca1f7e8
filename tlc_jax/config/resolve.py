"""ConfigDicts in, frozen dataclasses out.

Files in `configs/` start from `default_config()`, a locked `ml_collections.ConfigDict` made from
`Config`. Flags override it, and `resolve` turns the result into a frozen `Config`. It refuses
unknown names, wrong types and values out of bounds before JAX is imported.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from tlc_jax.config.checks import check_values
from tlc_jax.config.schema import (
    Analyze,
    Bench,
    Budget,
    Checkpoint,
    Compress,
    Data,
    Decode,
    Eval,
    Export,
    Impl,
    Init,
    Model,
    Objective,
    Optimizer,
    Plan,
    Predict,
    Study,
    Tokenizer,
    setting,
)
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean, note_once


@dataclasses.dataclass(frozen=True)
class Config:
    """A resolved configuration."""

    seed: int = setting(0, "with it and the step everything random is fixed")
    seeds: tuple[int, ...] = setting(
        (), "finetune: one run per seed, in seed-K/, and a summary; empty: `seed` alone"
    )
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    objective: Objective = Objective()
    budget: Budget = Budget()
    optimizer: Optimizer = Optimizer()
    init: Init = Init()
    recipe: str = setting(
        "dense", "prune, remove, quantize, finetune, joined by +: e.g. prune:0.75+quantize:4"
    )
    compress: Compress = Compress()
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    decode: Decode = Decode()
    impl: Impl = Impl()
    predict: Predict = Predict()
    analyze: Analyze = Analyze()
    export: Export = Export()
    study: Study = Study()
    bench: Bench = Bench()
    plan: Plan = Plan()

    @property
    def microbatch(self) -> int:
        """Part of the batch per gradient accumulation step: the largest divisor up to the setting.

        Raises:
          ValueError: impl.microbatch=auto, which the command has to replace by a number first.
        """
        if isinstance(self.impl.microbatch, str):
            raise ValueError("impl.microbatch=auto was not settled")
        batch = self.optimizer.batch_size
        most = min(self.impl.microbatch or batch, batch)
        return next(size for size in range(most, 0, -1) if batch % size == 0)

    @property
    def microbatches(self) -> int:
        """Gradient accumulation steps per optimizer step."""
        return self.optimizer.batch_size // self.microbatch

    def with_microbatch(self, microbatch: int) -> Config:
        """The same with another impl.microbatch."""
        return dataclasses.replace(self, impl=dataclasses.replace(self.impl, microbatch=microbatch))


# Old names of commands and settings, which keep working for one release.
_RENAMED = {"analyse": "analyze"}


def current_name(name: str) -> str:
    """The name of a command or top-level setting today, with one line on stderr if it changed."""
    new = _RENAMED.get(name, name)
    if new != name:
        note_once(f"{name} is now called {new}; use that name")
    return new


class _Settings(ConfigDict):
    """A ConfigDict that knows old names, so that old config files can be read."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(current_name(name))


def key_of(field: dataclasses.Field[Any]) -> str:
    """The name users write. `from` cannot be a dataclass field, so a field may carry an alias."""
    return str(field.metadata.get("alias") or field.name)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as the nested plain dict that users see, ready for JSON."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, Mapping):
            value = {name: _plain(inner) for name, inner in value.items()}
        result[key_of(field)] = value
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


def default_config() -> ConfigDict:
    """All settings with their defaults, locked so that a misspelt name in a config file is refused."""
    return to_config_dict(Config())


def to_config_dict(config: Config) -> ConfigDict:
    """A config as a locked ConfigDict that config files and flags can change."""
    settings = _Settings(to_dict(config))
    # A ConfigDict keeps the type of the first value, and this one is a number or a word.
    del settings.impl.microbatch
    settings.impl.microbatch = FieldReference(config.impl.microbatch, field_type=object)
    return settings.lock()


def resolve(settings: ConfigDict | Mapping[str, Any]) -> Config:
    """The frozen config of a (possibly overridden) ConfigDict or of a stored config.json.

    Raises:
      InputError: an unknown name, a wrong type or a value that cannot be.
    """
    plain = _plain(settings)
    if isinstance(plain, Mapping):
        plain = {current_name(name): value for name, value in plain.items()}
    config = _build(Config, plain, "")
    check_values(config)
    for size in (*config.study.sizes, *config.study.translators):
        parse_size(size)
    return typing.cast(Config, config)


def merge(base: Mapping[str, Any], *partials: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the settings of nested partial configs laid over it, later ones last."""
    merged = dict(_plain(base))
    for partial in partials:
        for name, value in _plain(partial).items():
            if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
                merged[name] = merge(merged[name], value)
            else:
                merged[name] = value
    return merged


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each setting in which two plain configs differ, as "name: old -> new"."""
    rows = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            rows += differences(before, after, f"{prefix}{name}.")
        elif json.dumps(before, default=list) != json.dumps(after, default=list):
            rows.append(f"{prefix}{name}: {before!r} -> {after!r}")
    return rows


def parse_size(text: str) -> tuple[int, int]:
    """`LAYERSxHIDDEN` to (layers, hidden)."""
    layers, cross, hidden = text.partition("x")
    if not (cross and layers.isdecimal() and hidden.isdecimal()):
        raise InputError(f"size {text!r} is not LAYERSxHIDDEN, such as 12x768")
    return int(layers), int(hidden)


def describe(cls: type = Config, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(name, default, documentation) of every setting, for help texts."""
    rows = []
    for field in dataclasses.fields(cls):
        name = f"{prefix}{key_of(field)}"
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if dataclasses.is_dataclass(default):
            rows += describe(type(default), f"{name}.")
        else:
            doc, allowed = field.metadata["doc"], field.metadata["allowed"]
            hint = allowed if isinstance(allowed, str) else " | ".join(map(str, allowed))
            rows.append((name, default, f"{doc} [{hint}]" if hint else doc))
    return rows


def _build(cls: type, settings: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(settings, Mapping):
        raise InputError(f"config.{prefix.rstrip('.')} is a section of settings, not {settings!r}")
    fields = {key_of(field): field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in settings:
        if name not in fields:
            raise InputError(
                f"unknown config field {prefix}{name}"
                f"{did_you_mean(prefix + name, [prefix + known for known in sorted(fields)])}"
            )
    values = {}
    for name, value in settings.items():
        field = fields[name]
        hint = hints[field.name]
        where = f"{prefix}{name}"
        values[field.name] = (
            _build(hint, value, f"{where}.")
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
            else _convert(value, hint, where)
        )
        _check(values[field.name], field.metadata.get("allowed", ()), f"config.{where}={value!r}")
    return cls(**values)


_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def _check(value: Any, allowed: tuple[Any, ...] | str, what: str) -> None:
    """Refuses a value, or an item of a tuple, that is not among choices or not within bounds."""
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(allowed, tuple):
            if allowed and item not in allowed:
                raise InputError(f"{what} must be one of {', '.join(map(str, allowed))}")
        elif not isinstance(item, str):
            bounds = (bound.split() for bound in allowed.split(" and "))
            # NaN compares false with everything, so it is refused as well.
            if not all(_COMPARE[sign](item, float(limit)) for sign, limit in bounds):
                raise InputError(f"{what} must be {allowed}")


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the declared type; an int is a float, a list is a tuple, nothing else is converted."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, (list, tuple)):
            inner = typing.get_args(hint)[0]
            return tuple(_convert(item, inner, where) for item in value)
        raise InputError(f'config.{where}={value!r} must be a tuple, such as {where}="(1, 2)"')
    if origin is types.UnionType:
        if type(value) in typing.get_args(hint):
            return value
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return types.MappingProxyType(dict(value))
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    raise InputError(
        f"config.{where}={value!r} must be of type {hint.__name__ if isinstance(hint, type) else hint}"
    )
