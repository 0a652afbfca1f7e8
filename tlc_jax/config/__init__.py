"""Every setting and how configs are made of them: `default_config` for config files, `resolve` for frozen configs."""

from tlc_jax.config.resolve import (
    Config,
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

__all__ = [
    "Analyse", "Bench", "Budget", "Checkpoint", "Compress", "Config", "Data", "Decode", "Eval", "Export", "Impl",
    "Init", "Model", "Objective", "Optimizer", "Plan", "Predict", "Study", "Tokenizer", "default_config", "describe",
    "differences", "key_of", "merge", "parse_size", "resolve", "setting", "to_config_dict", "to_dict",
]  # fmt: skip
