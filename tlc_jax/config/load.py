"""Config files: Python with a `get_config(arg)` that returns a ConfigDict."""

from __future__ import annotations

import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

from tlc_jax.config.resolve import to_dict
from tlc_jax.config.schema import Config, current_name
from tlc_jax.core.errors import InputError
from tlc_jax.core.text import one_line


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

    Raises:
      InputError: the file does not exist, fails (the message names the line), or returns something
        other than a ConfigDict.
    """
    path, colon, parameter = argument.partition(":")
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"cannot read config file {path}: {reason}") from error
    module = types.ModuleType("tlc_config_file")
    module.__file__ = path
    # A config file may import its neighbors, as a script may, or `configs.common` as of a package.
    folder = Path(path).parent.absolute()
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
