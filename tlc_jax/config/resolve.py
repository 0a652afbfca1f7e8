"""From a config file, a ConfigDict or a stored config.json to the frozen `Config`.

A config file is Python with a `get_config(arg)` that returns a ConfigDict.

`resolve` refuses unknown names, wrong types, values out of bounds and settings that contradict each
other. It does so before JAX is imported.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

from tlc_jax.config.durations import UNITS
from tlc_jax.config.schema import Config, Model, current_name
from tlc_jax.core import plugins
from tlc_jax.core.distributed import parse as parse_processes
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean, note_once, one_line

RESOLVED = "resolved"
"""The part of a config.json about values that a run chose for settings that are `auto`."""


def _key_of(field: dataclasses.Field[Any]) -> str:
    """The name users write. `from` cannot be a dataclass field, so a field may have an alias."""
    return str(field.metadata.get("alias") or field.name)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as the nested plain dict that users see, ready for JSON."""
    values = {_key_of(field): getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for name, value in values.items()
    }


def _plain(value: Any) -> Any:
    """`value` with plain dicts in place of ConfigDicts and read-only mappings."""
    if isinstance(value, (ConfigDict, Mapping)):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


def resolve(settings: ConfigDict | Mapping[str, Any]) -> Config:
    """The frozen config of a (possibly overridden) ConfigDict or of a stored config.json.

    Raises:
      InputError: an unknown name, a wrong type, a value out of bounds, or a contradiction.
    """
    plain = _plain(settings)
    if isinstance(plain, dict):
        plain.pop(RESOLVED, None)
        _rename_tensorboard(plain.get("impl", {}))
    config = typing.cast(Config, _build(Config, plain))
    for message in _contradictions(config):
        raise InputError(message)
    if config.study.translators:
        require_translator(config)
    for size in (*config.study.sizes, *config.study.translators):
        parse_size(size)
    parse_processes(config.impl.processes)
    if config.impl.profile:
        parse_profile(config.impl.profile)
    return config


def _rename_tensorboard(impl: dict[str, Any]) -> None:
    """Reads impl.tensorboard of stored configs, until the next release, as a tracker."""
    if impl.pop("tensorboard", False):
        impl["trackers"] = (*impl.get("trackers", ()), "tensorboard")
        note_once("impl.tensorboard=True is now impl.trackers=\"('tensorboard',)\"")


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
        # As JSON, where a tuple equals the list that config.json has in its place.
        elif json.dumps(before, default=list) != json.dumps(after, default=list):
            rows.append(f"{prefix}{name}: {before!r} -> {after!r}")
    return rows


def parse_profile(text: str) -> tuple[int, int]:
    """The two numbers of impl.profile: steps done when tracing begins, and steps to trace.

    Raises:
      InputError: bad syntax.
    """
    start, _, steps = text.partition(":")
    if not (start.isdecimal() and steps.isdecimal() and int(start) and int(steps)):
        raise InputError(
            f"impl.profile={text!r}: write START:STEPS, two numbers from 1 on, such as 100:5"
        )
    return int(start), int(steps)


def parse_size(text: str) -> tuple[int, int]:
    """The layers and the hidden width of `LAYERSxHIDDEN`."""
    layers, cross, hidden = text.partition("x")
    if not (cross and layers.isdecimal() and hidden.isdecimal()):
        raise InputError(f"size {text!r} is not LAYERSxHIDDEN, such as 12x768")
    return int(layers), int(hidden)


class Setting(typing.NamedTuple):
    """What help and flags know about a setting.

    Attributes:
      name: name with its section, such as "model.layers".
      type: declared type.
      default: value where nothing is set.
      doc: help text with the allowed values.
    """

    name: str
    type: Any
    default: Any
    doc: str


def describe(section: Any = Config, prefix: str = "") -> list[Setting]:
    """All settings, in the order of their declaration."""
    settings, defaults = [], section()
    for field in dataclasses.fields(section):
        name = f"{prefix}{_key_of(field)}"
        if dataclasses.is_dataclass(field.type):
            settings += describe(field.type, f"{name}.")
        else:
            doc, allowed = field.metadata["doc"], field.metadata["allowed"]
            hint = allowed if isinstance(allowed, str) else " | ".join(map(str, allowed))
            doc = f"{doc} [{hint}]" if hint else doc
            settings.append(Setting(name, field.type, getattr(defaults, field.name), doc))
    return settings


def _build(cls: Any, settings: Mapping[str, Any], prefix: str = "") -> Any:
    """The section `cls` with these settings, all of them checked one by one."""
    if not isinstance(settings, Mapping):
        raise InputError(f"config.{prefix.rstrip('.')} is a section of settings, not {settings!r}")
    fields = {_key_of(field): field for field in dataclasses.fields(cls)}
    values = {}
    for given, value in settings.items():
        name = given if prefix else current_name(given)
        where = f"{prefix}{name}"
        if name not in fields:
            known = [prefix + other for other in sorted(fields)]
            raise InputError(f"unknown config field {where}{did_you_mean(where, known)}")
        field = fields[name]
        if dataclasses.is_dataclass(field.type):
            values[field.name] = _build(field.type, value, f"{where}.")
        else:
            values[field.name] = converted = _convert(value, field.type, where)
            _check(converted, field.metadata["allowed"], f"config.{where}={value!r}")
    return cls(**values)


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the declared type; ints become floats, lists tuples, and nothing else changes."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f'config.{where}={value!r} must be a tuple, such as {where}="(1, 2)"')
        return tuple(_convert(item, typing.get_args(hint)[0], where) for item in value)
    if origin is Mapping and isinstance(value, Mapping):
        # Read-only, because a config is frozen.
        return types.MappingProxyType(dict(value))
    if hint is float and type(value) is int:  # a bool is an int too, but True seconds are a mistake
        return float(value)
    if type(value) in (typing.get_args(hint) if origin is types.UnionType else (hint,)):
        return value
    name = hint.__name__ if isinstance(hint, type) else hint
    raise InputError(f"config.{where}={value!r} must be of type {name}")


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


def _contradictions(config: Config) -> Iterator[str]:
    """Messages about settings that contradict each other, whatever the command."""
    model, data, optimizer = config.model, config.data, config.optimizer
    objective, checkpoint, decode = config.objective, config.checkpoint, config.decode
    width = model.head_size or model.HEAD_SIZE
    if model.heads and not model.head_size and model.hidden % model.heads:
        yield f"model.hidden={model.hidden} is not divisible by model.heads={model.heads}"
    if not model.heads and model.hidden % width:
        yield (
            f"model.hidden={model.hidden} is not a multiple of the head size {width}: "
            "change it or set model.heads"
        )
    if data.length > model.max_length:
        yield (
            f"data.length={data.length} is beyond the model's positions: "
            f"raise model.max_length={model.max_length}"
        )
    if objective.mask_token + objective.random_token > 1:
        yield "objective.mask_token and objective.random_token must add up to at most 1"
    # The rate is relative to the one at the end of warm-up, and 1 / sqrt(0) has no value.
    if optimizer.schedule == "rsqrt" and optimizer.warmup == 0:
        yield "optimizer.schedule=rsqrt starts at the end of warm-up: set optimizer.warmup above 0"
    if optimizer.schedule == "wsd" and optimizer.warmup + optimizer.cooldown > 1:
        yield "optimizer.warmup and optimizer.cooldown must add up to at most 1"
    budget = config.budget
    if budget.branches and optimizer.schedule != "wsd":
        yield (
            f"budget.branches={budget.branches} need a rate that falls in the end alone: "
            "set optimizer.schedule=wsd"
        )
    for unit, share in product(("steps", "examples", "tokens"), budget.branches):
        limit = getattr(budget, unit)
        if abs(share * limit - round(share * limit)) > 1e-6:
            yield f"budget.branches={share:g} of budget.{unit}={limit} is not a whole number"
    if isinstance(config.impl.microbatch, str) and config.impl.microbatch != "auto":
        yield f"impl.microbatch={config.impl.microbatch!r}: write a number or auto"
    attention, matmul = config.impl.attention, config.impl.matmul
    if attention in ("cudnn", "pallas") and matmul not in ("auto", "bfloat16"):
        yield (
            f"impl.attention={attention} computes in bfloat16, and impl.matmul={matmul}: "
            "set impl.matmul=bfloat16 or impl.attention=auto"
        )
    if checkpoint.average > checkpoint.keep:
        yield (
            f"checkpoint.average={checkpoint.average} is more than "
            f"checkpoint.keep={checkpoint.keep}"
        )
    evals = config.eval
    if evals.keep_predictions and not (evals.every_steps or evals.every_seconds):
        yield "eval.keep_predictions needs evaluations while training: set eval.every_steps"
    if decode.nbest > decode.beams:
        yield f"decode.nbest={decode.nbest} is more than decode.beams={decode.beams}"
    if len(set(config.seeds)) < len(config.seeds):
        yield f"seeds={config.seeds} names a seed twice"
    if 0 < data.max_ratio < 1:
        yield f"data.max_ratio={data.max_ratio} must be 0 or at least 1"
    if not set(config.study.scratch) <= set(config.study.sizes):
        yield f"study.scratch={config.study.scratch} must be among study.sizes"


def require_translator(config: Config) -> None:
    """Refuses settings of `model` that only encoders have."""
    model = config.model
    if model.norm != "pre":
        raise InputError(
            f"model.norm={model.norm}: translators normalize the inputs of layers; "
            "leave model.norm=pre"
        )
    if model.token_types or model.padding:
        raise InputError(
            "model.token_types and model.padding are for imported encoders: "
            "leave them 0 for a translator"
        )


def require_own_architecture(config: Config) -> None:
    """Refuses settings of `model` that the systems compared in `bench --peers` do not have."""
    for name in ("norm", "activation", "token_types", "head_size"):
        if getattr(config.model, name) != (default := getattr(Model, name)):
            raise InputError(
                f"model.{name}: --peers compares pre-norm models with GELU; leave it at {default!r}"
            )


def require_budget(config: Config) -> None:
    """Refuses to train without a limit."""
    budget = config.budget
    if not any(getattr(budget, unit) > 0 for unit in UNITS):
        raise InputError(
            f"no budget: set at least one of {', '.join(f'budget.{unit}' for unit in UNITS)}"
        )
    if budget.clock == "benchmark" and not budget.converts_seconds:
        note_once("budget.clock=benchmark has no effect without budget.seconds")
    if budget.clock == "benchmark" and budget.charge == "total":
        raise InputError(
            "budget.clock=benchmark counts training steps only: leave budget.charge=training"
        )


def require_names(config: Config) -> None:
    """Refuses trackers and tasks to train that are neither ours nor those of a plug-in."""
    for name in config.impl.trackers:
        plugins.find("tracker", name, "config.impl.trackers: ")
    if plugins.find("task", config.task, "config.task: ") is None and config.task != Config.task:
        raise InputError(f"config.task={config.task}: name classifier, or the task of a plug-in")


class _Settings(ConfigDict):
    """A ConfigDict that knows old names, so that old config files can be read."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(current_name(name))


def default_config() -> ConfigDict:
    """All settings with their defaults, locked so that a config file cannot misspell a name."""
    return to_config_dict(Config())


def to_config_dict(config: Config) -> ConfigDict:
    """A config as a locked ConfigDict that config files and flags can change."""
    settings = to_dict(config)
    # A ConfigDict keeps the type of the first value, and these are also words.
    for name in ("microbatch", "remat"):
        settings["impl"][name] = FieldReference(getattr(config.impl, name), field_type=object)
    return _Settings(settings).lock()


def load_file(argument: str) -> ConfigDict:
    """The locked ConfigDict that `get_config(ARG)` of `FILE.py[:ARG]` returns.

    Away from the checkout, `configs/NAME.py` is the experiment that the package carries.

    Raises:
      InputError: the file does not exist, fails (the message names the line), or returns something
        other than a ConfigDict.
    """
    path, colon, parameter = argument.partition(":")
    file = Path(path)
    if file.parts[:1] == ("configs",) and not file.exists():
        file = Path(__file__).parents[1] / file
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"cannot read config file {path}: {reason}") from error
    module = types.ModuleType("tlc_config_file")
    module.__file__ = str(file)
    # A config file may import its neighbors, as a script may, or `configs.common` as of a package.
    folder = file.parent.absolute()
    places = [str(folder), str(folder.parent)]
    sys.path[:0] = places
    try:
        exec(compile(source, path, "exec"), module.__dict__)
        if not callable(getattr(module, "get_config", None)):
            raise InputError(f"config file {path} has no function get_config(arg)")
        settings = module.get_config(parameter) if colon else module.get_config()
    except InputError:
        raise
    except Exception as error:
        raise InputError(_blame(path, error)) from error
    finally:
        for place in places:
            sys.path.remove(place)
    if not isinstance(settings, ConfigDict):
        raise InputError(
            f"get_config of {path} must return a ConfigDict, such as one from "
            "config.default_config()"
        )
    return settings.lock()


def _blame(path: str, error: Exception) -> str:
    """One line on an error inside a config file."""
    if isinstance(error, SyntaxError):
        return f"config file {path}, line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    # The last of these lines is where the file, and not what it calls, failed.
    lines = [f", line {frame.lineno}" for frame in frames if frame.filename == path]
    what = unknown_key(error) or f"{type(error).__name__}: {one_line(error)}"
    return f"config file {path}{''.join(lines[-1:])}: {what}"


def unknown_key(error: Exception) -> str | None:
    """Our message for an error of ml_collections about an unknown name; None for other errors."""
    if meant := re.search(r'Did you mean "(.+?)" instead of "(.+?)"', str(error)):
        return f"unknown config field {meant[2]}; did you mean {meant[1]}?"
    if isinstance(error, (AttributeError, KeyError)) and (
        unknown := re.search(r'Key "(.+?)" does not exist', str(error))
        or re.fullmatch(r"\W*(\w+)\W*", str(error))
    ):
        return f"unknown config field {unknown[1]}"
    return None
