"""Settings: `default_config` for config files, `resolve` for frozen configs."""

# ruff: noqa: F401, F403  # the names that other rooms use
from tlc_jax.config.resolve import (
    default_config,
    describe,
    differences,
    merge,
    parse_size,
    resolve,
    to_config_dict,
    to_dict,
)
from tlc_jax.config.schema import *
