"""From an argument list to a checked command, or one line that says what is wrong.

This file imports no JAX, so that a refusal comes at once.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags.tuple_parser import TupleParser

from tlc_jax import config as configs
from tlc_jax.commands import COMMANDS, SHARED_SECTIONS, CommandSpec, find
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.config.resolve import load_file, require_budget, require_names, unknown_key
from tlc_jax.core import plugins
from tlc_jax.core.errors import InputError
from tlc_jax.core.files import path_of
from tlc_jax.core.text import did_you_mean, one_line
from tlc_jax.runs.workdir import config_of_run, read_config

_SETTING = re.compile(r"(--?(?:no)?config\.)([^=]+)")
_PARTIAL_CONFIGS = ("study.finetune.", "study.tasks.", "study.translation.")
"""Settings below these have the types of the settings whose names they end with."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command to run: its name, its resolved config, its workdir and its own flags."""

    name: str
    config: configs.Config
    workdir: Path
    options: Mapping[str, Any]


def parse(arguments: Sequence[str]) -> Command:
    """The command that `arguments` (without the program's name) ask for.

    Raises:
      InputError: wrong arguments or settings, in one line that says how to mend them.
    """
    name, spec = find(arguments[0])
    options, overrides = _parse_flags(name, spec, list(map(_current_section, arguments[1:])))
    if options["workdir"] is None and spec.needs_workdir:
        raise InputError(f"--workdir=DIR is missing: where should `tlc {name}` keep its files?")
    path, workdir = options.pop("config"), path_of(options.pop("workdir") or ".")
    if (init := options.get("init")) is not None:
        chosen = overrides.setdefault("init.from", init)
        if chosen != init:
            raise InputError(
                f"--init={init} and --config.init.from={chosen} disagree: give one of them"
            )
    if path is not None:
        settings = load_file(path)
    else:
        settings = _default_settings(name, spec, workdir, overrides.get("init.from"))
    config = configs.resolve(_override(settings, overrides))
    if "plugins" in spec.sections:
        plugins.load(config.plugins)
    of_study = (*config.study.recipes, *config.study.translator_recipes)
    for section, recipes in (("recipe", (config.recipe,)), ("study", of_study)):
        for recipe in map(parse_recipe, recipes):
            # Commands that only read what a plug-in has made do without it.
            if {section, "plugins"} <= {*spec.sections}:
                recipe.require_names()
    if "checkpoint" in spec.sections:
        require_names(config)
    if spec.needs_budget:
        require_budget(config)
    if not spec.several and config.impl.processes not in ("auto", "one"):
        raise InputError(f"`tlc {name}` runs in one process: leave impl.processes out")
    return Command(name, config, workdir, types.MappingProxyType(options))


def _current_section(argument: str) -> str:
    """An argument with the name that its section of settings has today."""
    if match := _SETTING.match(argument):
        section, dot, rest = argument[match.start(2) :].partition(".")
        return f"{match[1]}{configs.current_name(section)}{dot}{rest}"
    return argument


class _LiteralParser(flags.ArgumentParser):
    """Parses a Python literal; any other text stays text, such as `auto` of impl.microbatch."""

    def parse(self, argument: str) -> Any:
        try:
            return ast.literal_eval(argument)
        except (SyntaxError, ValueError):
            return argument


class _SwitchParser(flags.ArgumentParser):
    """Parses a boolean; any other text stays text, such as `auto` of impl.remat."""

    def parse(self, argument: Any) -> Any:
        try:
            return flags.BooleanParser().parse(argument)
        except ValueError:
            return argument


_DEFINE: dict[Any, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: functools.partial(flags.DEFINE_multi, TupleParser(), flags.ArgumentSerializer()),
    bool | str: functools.partial(flags.DEFINE, _SwitchParser(), boolean=True),
}
_define_literal = functools.partial(flags.DEFINE, _LiteralParser())


def _parse_flags(
    name: str, spec: CommandSpec, arguments: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a command's own flags, and of the settings that `arguments` override.

    Raises:
      InputError: an unknown flag or setting, a value of another type, or a setting that the command
        does not read.
    """
    values = flags.FlagValues()
    own = {"config": str, "workdir": str} | {option.name: option.kind for option in spec.options}
    for flag, kind in own.items():
        _DEFINE[kind](flag, False if kind is bool else None, "", flag_values=values)
    kinds = {setting.name: setting.type for setting in configs.describe()}
    known = list(kinds)
    for match in filter(None, map(_SETTING.match, arguments)):
        partial, inner = _partial_config(match[2])
        if partial:
            # Known only from the arguments, because the names of tasks are free.
            if inner and inner not in known:
                raise InputError(f"{_unknown_setting(inner, known)} (in config.{partial})")
            kinds[match[2]] = kinds.get(inner)
    for setting, kind in kinds.items():
        define = _DEFINE.get(kind) or _DEFINE.get(typing.get_origin(kind), _define_literal)
        define(f"config.{setting}", None, "", flag_values=values)
    values.set_gnu_getopt(True)  # flags may follow an argument, so that a stray one is named
    try:
        _, *unknown = values(["tlc", *arguments], known_only=True)
    except (flags.Error, ValueError) as error:
        raise InputError(one_line(error)) from error
    if unknown:
        raise InputError(_unknown(unknown[0], name, list(own), known))
    given = {setting: values[f"config.{setting}"] for setting in kinds}
    overrides: dict[str, Any] = {s: flag.value for s, flag in given.items() if flag.present}
    for setting, value in overrides.items():
        section = setting.partition(".")[0]
        if section not in (*spec.sections, *SHARED_SECTIONS):
            readers = ", ".join(other for other in COMMANDS if section in COMMANDS[other].sections)
            raise InputError(
                f"`tlc {name}` does not read config.{setting} (it is for {readers}): leave it out"
            )
        if isinstance(given[setting], flags.MultiFlag):
            overrides[setting] = tuple(itertools.chain(*value))  # a tuple for each repetition
    return {flag: values[flag].value for flag in own}, overrides


def _partial_config(name: str) -> tuple[str, str]:
    """The partial config that a setting is in, and its name within it; empty for other settings."""
    if not name.startswith(_PARTIAL_CONFIGS):
        return "", ""
    parts = name.split(".")
    depth = 3 if parts[1] == "tasks" else 2
    return ".".join(parts[:depth]), ".".join(parts[depth:])


def _unknown(argument: str, command: str, own: Sequence[str], known: Sequence[str]) -> str:
    """The message about an argument that is neither a flag of the command nor a setting."""
    if match := _SETTING.match(argument):
        return _unknown_setting(match[2], known)
    flag = argument.partition("=")[0]
    kind = "flag" if flag.startswith("-") else "argument"
    close = did_you_mean(flag, [f"--{name}" for name in own])
    return f"unknown {kind} {flag!r} of `tlc {command}`{close}"


def _unknown_setting(name: str, known: Sequence[str]) -> str:
    """The message about an unknown setting, which may be a known one in the wrong section."""
    if inside := [setting for setting in known if setting.startswith(f"{name}.")]:
        return f"config.{name} is a section: set one of {', '.join(inside)}"
    section, _, leaf = name.rpartition(".")
    inside = [setting for setting in known if section and setting.startswith(f"{section}.")]
    close = did_you_mean(name, inside or known)
    if twins := [setting for setting in known if setting.rpartition(".")[2] == leaf]:
        close = f"; did you mean {twins[0]}?"
    elif not inside and "did you mean" not in close:
        # Sections alone, because a hundred settings would not be one line.
        close = did_you_mean(name, dict.fromkeys(other.partition(".")[0] for other in known))
    return f"unknown config field {name}{close}"


def _default_settings(
    name: str, spec: CommandSpec, workdir: Path, source: str | None
) -> ConfigDict:
    """The config of a command that may go without --config; `source` is init.from."""
    if spec.default_config in ("workdir", "optional"):
        path = workdir / "config.json"
        if spec.default_config == "optional" and not path.exists():
            return configs.default_config()
        if not path.exists():
            raise InputError(
                f"{path} does not exist: name the --workdir of a study, or its --config"
            )
    elif spec.default_config == "init":
        if not source:
            raise InputError(
                f"`tlc {name}` needs --init=DIR (a run, a checkpoint or an artifact) or "
                "--config=FILE.py"
            )
        path = config_of_run(source)
    else:
        raise InputError(
            "--config=FILE.py[:ARG] is missing, such as --config=configs/mlm.py:12x768; "
            f"see `tlc {name} --help`"
        )
    return configs.to_config_dict(read_config(path))


def _override(settings: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """`settings` with the overrides of the command line."""
    try:
        for name, value in overrides.items():
            *sections, leaf = name.split(".")
            partial, inner = _partial_config(name)
            if inner:
                # A partial config may lack the setting. A task itself has to be there.
                section = functools.reduce(operator.getitem, partial.split("."), settings)
                for part in reversed(inner.split(".")):
                    value = {part: value}
                with section.unlocked(), section.ignore_type():
                    section.update(value)
                continue
            section = functools.reduce(operator.getitem, sections, settings)
            if isinstance(section[leaf], ConfigDict) and not isinstance(value, dict):
                raise TypeError(f"config.{name} is a section of settings, not {value!r}")
            # The types of the schema count, and not those that a config file happens to use.
            with section.ignore_type():
                section[leaf] = value
    except (TypeError, KeyError) as error:
        raise InputError(unknown_key(error) or one_line(error)) from error
    return settings
