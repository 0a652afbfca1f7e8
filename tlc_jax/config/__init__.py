"""Settings: `default_config` for config files, `resolve` for frozen configs."""

from tlc_jax.config.resolve import (
    Config,
    current_name,
    default_config,
    describe,
    differences,
    key_of,
    merge,
    parse_size,
    resolve,
    to_config_dict,
    to_dict,
)
from tlc_jax.config.schema import *  # noqa: F403  # the sections, and `setting`

__all__ = [
    "Config", "current_name", "default_config", "describe", "differences", "key_of", "merge",
    "parse_size", "resolve", "to_config_dict", "to_dict",
]  # fmt: skip
