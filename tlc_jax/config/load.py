"""Config files: Python whose `get_config(arg)` returns a ConfigDict. What is wrong in one is said with its line."""

from __future__ import annotations

import re
import sys
import traceback
import types
from pathlib import Path

from ml_collections import ConfigDict

from tlc_jax.core.errors import InputError
from tlc_jax.core.text import one_line


def load_file(argument: str) -> ConfigDict:
    """The locked ConfigDict of `FILE.py[:ARG]`: what its `get_config(ARG)` returns.

    Raises:
      InputError: no such file, an error inside it (named with its line), or no ConfigDict.
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
            f"get_config of {path} must return a ConfigDict, such as one from config.default_config()"
        )
    return settings.lock()


def _blame(path: str, error: Exception) -> str:
    """One line on an error inside a config file."""
    if isinstance(error, SyntaxError):
        return f"config file {path}, line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    where = f"config file {path}, line {lines[-1]}" if lines else f"config file {path}"
    return f"{where}: {unknown_key(error) or f'{type(error).__name__}: {one_line(error)}'}"


def unknown_key(error: Exception) -> str | None:
    """What ml_collections says about a name that a ConfigDict does not have, in our words."""
    if meant := re.search(r'Did you mean "(.+?)" instead of "(.+?)"', str(error)):
        return f"unknown config field {meant[2]}; did you mean {meant[1]}?"
    if isinstance(error, (AttributeError, KeyError)) and (
        unknown := re.search(r'Key "(.+?)" does not exist', str(error))
        or re.fullmatch(r"\W*(\w+)\W*", str(error))
    ):
        return f"unknown config field {unknown[1]}"
    return None
