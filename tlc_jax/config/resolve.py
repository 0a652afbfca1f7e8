"""ConfigDicts in, frozen dataclasses out.

Files in `configs/` start from `default_config()`, a locked `ml_collections.ConfigDict` made from `Config` and the
sections in `settings`. Flags override it, and `resolve` turns the result into a frozen `Config`, refusing unknown
names, wrong types and impossible values before JAX is imported.

Sections up to `eval` are science: they change results. `impl` does not, beyond rounding. The rest drives one stage.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from tlc_jax.config.checks import check_values
from tlc_jax.config.schema import (
    Analyse,
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


def _section(cls: type, doc: str) -> Any:
    return dataclasses.field(default_factory=cls, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
    """A resolved configuration."""

    seed: int = setting(0, "with it and the step everything random is fixed")
    seeds: tuple[int, ...] = setting(
        (), "finetune: one run per seed, in seed-K/, and a summary; empty: `seed` alone"
    )
    data: Data = _section(Data, "sources")
    tokenizer: Tokenizer = _section(Tokenizer, "tokenizer")
    model: Model = _section(Model, "encoder")
    objective: Objective = _section(Objective, "what is minimised in pretraining and translation")
    budget: Budget = _section(Budget, "what a run may spend; the first limit used up stops it")
    optimizer: Optimizer = _section(Optimizer, "AdamW")
    init: Init = _section(Init, "starting point")
    recipe: str = setting(
        "dense", "prune, remove, quantize, finetune, joined by +: e.g. prune:0.75+quantize:4"
    )
    compress: Compress = _section(Compress, "how recipes are applied")
    eval: Eval = _section(Eval, "evaluation")
    checkpoint: Checkpoint = _section(Checkpoint, "checkpoints")
    decode: Decode = _section(Decode, "how translations are searched for")
    impl: Impl = _section(Impl, "implementation: must not change results beyond rounding")
    predict: Predict = _section(Predict, "stage predict")
    analyse: Analyse = _section(Analyse, "stage analyse")
    export: Export = _section(Export, "stage export")
    study: Study = _section(Study, "stage study")
    bench: Bench = _section(Bench, "stage bench")
    plan: Plan = _section(Plan, "stage plan")

    @property
    def microbatches(self) -> int:
        """Parts that the batch of a step is worked through in.

        Raises:
          ValueError: impl.microbatch=auto, which a stage has to settle first.
        """
        if isinstance(self.impl.microbatch, str):
            raise ValueError("impl.microbatch=auto was not settled")
        return self.optimizer.batch_size // (self.impl.microbatch or self.optimizer.batch_size)

    def with_microbatch(self, microbatch: int) -> Config:
        """The same with another impl.microbatch."""
        return dataclasses.replace(self, impl=dataclasses.replace(self.impl, microbatch=microbatch))


def key_of(field: dataclasses.Field[Any]) -> str:
    """The name users write. `from` cannot be a dataclass field, so a field may carry an alias."""
    return str(field.metadata.get("alias", field.name))


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
    settings = ConfigDict(to_dict(config))
    del (
        settings.impl.microbatch
    )  # its type would stay that of its value, and it is a number or a word
    settings.impl.microbatch = FieldReference(config.impl.microbatch, field_type=object)
    return settings.lock()


def resolve(settings: ConfigDict | Mapping[str, Any]) -> Config:
    """The frozen config of a (possibly overridden) ConfigDict or of a stored config.json.

    Raises:
      InputError: an unknown name, a wrong type or a value that cannot be.
    """
    config = _build(Config, _plain(settings), "")
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
            doc = field.metadata["doc"]
            choices = " | ".join(map(str, field.metadata["choices"]))
            rows.append((name, default, f"{doc} [{choices}]" if choices else doc))
    return rows


def _build(cls: type, settings: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(settings, Mapping):
        raise InputError(f"config.{prefix.rstrip('.')} is a section of settings, not {settings!r}")
    fields = {key_of(field): field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in settings:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = (
                f"; did you mean {prefix}{close[0]}?"
                if close
                else f"; known here: {', '.join(sorted(fields))}"
            )
            raise InputError(f"unknown config field {prefix}{name}{hint}")
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
        choices = field.metadata.get("choices", ())
        if choices and values[field.name] not in choices:
            raise InputError(
                f"config.{where}={value!r} must be one of {', '.join(map(str, choices))}"
            )
    return cls(**values)


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
