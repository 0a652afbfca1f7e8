"""From an argument list to a checked command, or to one line that says what is wrong. Imports no JAX."""

from __future__ import annotations

import dataclasses
import keyword
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from tlc_jax import config as configs
from tlc_jax.commands import COMMANDS, SHARED_SECTIONS, CommandSpec, find
from tlc_jax.compression.recipe import parse_recipe
from tlc_jax.config.checks import require_budget
from tlc_jax.config.load import load_file, unknown_key
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import did_you_mean, one_line
from tlc_jax.runs.workdir import config_of_run, read_config

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")


@dataclasses.dataclass(frozen=True)
class Command:
    """What to run: a stage's name, its resolved config, its workdir and its own flags."""

    stage: str
    config: configs.Config
    workdir: Path
    options: Mapping[str, Any]


def parse(arguments: Sequence[str]) -> Command:
    """The command that `arguments` (without the program's name) ask for.

    Raises:
      InputError: with one line on what is wrong and how to mend it.
    """
    name, *rest = arguments
    name, stage = find(name)
    values, overrides = _parse_flags(stage, rest)
    _check_overrides(name, stage, overrides)
    if values["workdir"] is None and stage.needs_workdir:
        raise InputError(f"--workdir=DIR is missing: where should `tlc {name}` keep its files?")
    workdir = Path(values.pop("workdir") or ".")
    path = values.pop("config")
    settings = (
        load_file(path)
        if path is not None
        else _default_settings(name, stage, workdir, values, overrides)
    )
    config = configs.resolve(_apply(settings, overrides, values.get("init")))
    for recipe in (config.recipe, *config.study.recipes, *config.study.translator_recipes):
        parse_recipe(recipe)
    if stage.needs_budget:
        require_budget(config)
    if not stage.several and config.impl.processes not in ("auto", "one"):
        raise InputError(f"`tlc {name}` runs in one process: leave impl.processes out")
    return Command(name, config, workdir, types.MappingProxyType(values))


def _parse_flags(stage: CommandSpec, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of the plain flags, and the arguments that override settings."""
    plain = flags.FlagValues()
    flags.DEFINE_string("config", None, "config file", flag_values=plain)
    flags.DEFINE_string("workdir", None, "directory of the run", flag_values=plain)
    define: dict[type, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
    }
    for option in stage.options:
        define[option.kind](option.name, option.default, option.doc, flag_values=plain)
    plain.set_gnu_getopt(True)
    try:
        _, *overrides = plain(["tlc", *arguments], known_only=True)
    except flags.Error as error:
        raise InputError(one_line(error)) from error
    return {name: plain[name].value for name in plain}, list(map(_current_section, overrides))


def _current_section(override: str) -> str:
    """An override with the name that its section has today."""
    return re.sub(
        r"^(--?(?:no)?config\.)(\w+)",
        lambda found: found[1] + configs.current_name(found[2]),
        override,
    )


def _check_overrides(name: str, stage: CommandSpec, overrides: Sequence[str]) -> None:
    """Refuses arguments that are not settings, unknown settings, and settings that the command ignores."""
    known = [setting for setting, _, _ in configs.describe()]
    free = tuple(
        f"{setting}." for setting, default, _ in configs.describe() if isinstance(default, Mapping)
    )
    takes_value = False  # "--config.x value" is as good as "--config.x=value"
    for argument in overrides:
        match = _OVERRIDE.match(argument)
        if match is None and takes_value:
            takes_value = False
            continue
        if match is None:
            flag = argument.split("=")[0]
            possible = ["--config", "--workdir", *(f"--{option.name}" for option in stage.options)]
            kind = "flag" if argument.startswith("-") else "argument"
            raise InputError(
                f"unknown {kind} {flag!r} of `tlc {name}`{did_you_mean(flag, possible)}"
            )
        setting = match[1]
        if setting not in known and not setting.startswith(free):
            raise InputError(_unknown_setting(setting, known))
        if (section := setting.partition(".")[0]) not in {*stage.sections, *SHARED_SECTIONS}:
            readers = ", ".join(other for other in COMMANDS if section in COMMANDS[other].sections)
            raise InputError(
                f"`tlc {name}` does not read config.{setting} (it is for {readers}): leave it out"
            )
        takes_value = "=" not in argument


def _unknown_setting(name: str, known: Sequence[str]) -> str:
    """The message about a setting that does not exist; a right name in the wrong section is found too."""
    if inside := [setting for setting in known if setting.startswith(f"{name}.")]:
        return f"config.{name} is a section: set one of {', '.join(inside)}"
    section, _, leaf = name.rpartition(".")
    inside = [setting for setting in known if section and setting.startswith(f"{section}.")]
    twins = [setting for setting in known if setting.rpartition(".")[2] == leaf]
    sections = list(dict.fromkeys(setting.partition(".")[0] for setting in known))
    close = did_you_mean(name, inside or known)
    if twins:
        close = f"; did you mean {twins[0]}?"
    elif not inside and "did you mean" not in close:
        close = did_you_mean(name, sections)  # a hundred settings would not be one line
    return f"unknown config field {name}{close}"


def _default_settings(
    name: str, stage: CommandSpec, workdir: Path, values: Mapping[str, Any], overrides: Sequence[str]
) -> ConfigDict:
    """The config of a stage that may go without --config."""
    if stage.default_config == "workdir":
        path = workdir / "config.json"
        if not path.exists():
            raise InputError(
                f"{path} does not exist: name the --workdir of a study, or its --config"
            )
        return configs.to_config_dict(read_config(path))
    if stage.default_config == "init":
        source = values.get("init") or _value_of("init.from", overrides)
        if not source:
            raise InputError(
                f"`tlc {name}` needs --init=DIR (a run, a checkpoint or an artifact) or --config=FILE.py"
            )
        return configs.to_config_dict(read_config(config_of_run(source)))
    raise InputError(
        f"--config=FILE.py[:ARG] is missing, such as --config=configs/mlm.py:12x768; see `tlc {name} --help`"
    )


def _value_of(setting: str, overrides: Sequence[str]) -> str | None:
    """The last value given to a setting on the command line."""
    value = None
    for index, argument in enumerate(overrides):
        if (match := _OVERRIDE.match(argument)) and match[1] == setting:
            _, equals, after = argument.partition("=")
            value = after if equals else overrides[index + 1]
    return value


def _apply(settings: ConfigDict, overrides: Sequence[str], init: str | None) -> ConfigDict:
    """`settings` with the overrides of the command line."""
    values = flags.FlagValues()
    arguments = ["tlc", *map(_spell_keywords, _with_values(overrides))]
    try:
        config_flags.DEFINE_config_dict("config", settings, flag_values=values, sys_argv=arguments)
        values(arguments)
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(unknown_key(error) or one_line(error)) from error
    if init is not None:
        chosen = _value_of("init.from", overrides)
        if chosen is not None and chosen != init:
            raise InputError(
                f"--init={init} and --config.init.from={chosen} disagree: give one of them"
            )
        settings.init["from"] = init
    return settings


def _with_values(overrides: Sequence[str]) -> list[str]:
    """`--config.a.b value` as `--config.a.b=value`: config_flags would take some settings for switches."""
    joined: list[str] = []
    for argument in overrides:
        if _OVERRIDE.match(argument):
            joined.append(argument)
        else:
            joined[-1] += f"={argument}"
    return joined


def _spell_keywords(argument: str) -> str:
    """`--config.init.from=X` as `--config.init["from"]=X`: config_flags reads names as Python, where `from` is none."""
    name, equals, value = argument.partition("=")
    if _OVERRIDE.match(argument):
        first, *parts = name.split(".")
        name = first + "".join(
            f'["{part}"]' if keyword.iskeyword(part) else f".{part}" for part in parts
        )
    return name + equals + value
