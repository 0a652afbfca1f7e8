"""Every setting, its unit and its default, declared once; ConfigDicts in, frozen dataclasses out.

Files in `configs/` start from `default_config()`, a locked `ml_collections.ConfigDict` made from the dataclasses
below. Flags override it, and `resolve` turns the result into a frozen `Config`, refusing unknown names, wrong types
and impossible values before JAX is imported.

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

from tlc_jax.config_checks import check_values
from tlc_jax.durations import UNITS, Amounts
from tlc_jax.errors import InputError


def _setting(default: Any, doc: str, choices: tuple[Any, ...] = ()) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "choices": choices})


def _section(cls: type, doc: str) -> Any:
    return dataclasses.field(default_factory=cls, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Data:
    train: str = _setting("", "source or comma-joined sources to train on; NAME=SOURCE names one, SOURCE@W weighs it")
    valid: str = _setting("", "source or comma-joined sources to evaluate on; empty: hold out part of data.train")
    dir: str = _setting("", "TFDS data directory; empty: TFDS's own default")
    cache: str = _setting("", "directory of tokenizers and packed tokens; empty: data/ inside the workdir")
    text: str = _setting("", "column or feature with the (first) text; empty: the usual names are tried")
    pair: str = _setting("", "column or feature with the second text; empty: the usual names; '-': none")
    label: str = _setting("", "column or feature with the label; empty: 'label'")
    length: int = _setting(128, "tokens per packed row (pretraining) or at most per example (finetuning)")
    holdout: float = _setting(0.005, "fraction of rows held out for validation where data.valid is empty")
    subsample: float = _setting(1.0, "fraction of the training rows or examples to use, chosen by the seed")
    max_ratio: float = _setting(
        4.0,
        "translation: pairs are left out whose one side has over this many times the tokens of the other; 0: none",
    )
    buckets: int = _setting(
        8, "translation: widths of batches at most, in training and decoding; each is compiled once"
    )


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    path: str = _setting(
        "", "SentencePiece model or tokenizer.json to load; empty: train one and store it in data.cache"
    )
    vocab_size: int = _setting(32768, "pieces, special and byte pieces included")
    train_bytes: int = _setting(20_000_000, "bytes of text at most that the tokenizer is trained on")


@dataclasses.dataclass(frozen=True)
class Model:
    HEAD_SIZE: typing.ClassVar[int] = 64  # where settings leave it open

    layers: int = _setting(12, "Transformer layers")
    hidden: int = _setting(768, "width of the residual stream")
    heads: int = _setting(0, "attention heads; 0: hidden / head_size, or hidden / 64")
    head_size: int = _setting(0, "width of an attention head; 0: hidden / heads")
    ffn: int = _setting(0, "width of the feed-forward layer; 0: 4 x hidden")
    max_length: int = _setting(128, "learned positions")
    dropout: float = _setting(0.1, "dropout after embeddings and sub-layers and in heads (never inside attention)")
    share: str = _setting("none", "layers that share one set of parameters", ("none", "attention", "all"))
    init: str = _setting(
        "normal",
        "normal: all drawn with deviation 0.02; fan_in: with 1/sqrt(fan in), positions start as sinusoids",
        ("normal", "fan_in"),
    )
    norm: str = _setting(
        "pre", "layers are normalised at their inputs (pre) or, as in BERT, after their sums (post)", ("pre", "post")
    )
    norm_epsilon: float = _setting(1e-5, "what layer normalisation adds to the variance")
    activation: str = _setting(
        "gelu",
        "of feed-forward layers and the masked-language head; gelu_tanh: the approximation by tanh",
        ("gelu", "gelu_tanh", "relu"),
    )
    token_types: int = _setting(0, "kinds of segments that have an embedding, as in BERT; 0: none")
    separator: int = _setting(0, "with token types: the id after whose first place in a row type 1 begins")
    padding: int = _setting(0, "id of the padding that attention leaves out; the tokenizer decides it")

    def filled(self) -> Model:
        """The same with the widths that follow from others written out."""
        heads = self.heads or self.hidden // (self.head_size or self.HEAD_SIZE)
        head_size = self.head_size or self.hidden // heads
        return dataclasses.replace(self, heads=heads, head_size=head_size, ffn=self.ffn or 4 * self.hidden)


@dataclasses.dataclass(frozen=True)
class Objective:
    label_smoothing: float = _setting(0.1, "translation: share of a target's weight that is spread over all tokens")
    mask_rate: float = _setting(0.15, "fraction of positions to predict in masked-language training")
    mask_token: float = _setting(0.8, "of these, the fraction replaced by <mask>")
    random_token: float = _setting(0.1, "of these, the fraction replaced by a random ordinary token")


@dataclasses.dataclass(frozen=True)
class Budget:
    seconds: float = _setting(0.0, "training seconds; 0: no such limit")
    steps: int = _setting(0, "optimizer steps; 0: no such limit")
    examples: int = _setting(0, "rows or examples seen; 0: no such limit")
    tokens: int = _setting(0, "tokens seen, padding included; 0: no such limit")
    epochs: float = _setting(0.0, "passes over the training data; 0: no such limit")
    flops: float = _setting(0.0, "floating-point operations by our formula; 0: no such limit")
    clock: str = _setting(
        "measured",
        "seconds by the clock, or turned once into steps after timing 100 of them",
        ("measured", "benchmark"),
    )
    charge: str = _setting(
        "training", "what counts as spent seconds: training steps alone, or everything", ("training", "total")
    )

    def limits(self) -> Amounts:
        return Amounts(**{unit: getattr(self, unit) for unit in UNITS})


@dataclasses.dataclass(frozen=True)
class Optimizer:
    batch_size: int = _setting(256, "per step: sequences to pretrain, examples to finetune, target tokens to translate")
    learning_rate: float = _setting(5e-4, "peak learning rate")
    reference_width: int = _setting(
        0, "hidden width that learning_rate is meant for; others get it times sqrt(this / hidden); 0: all the same"
    )
    warmup: float = _setting(0.06, "fraction of the budget over which the learning rate rises linearly")
    schedule: str = _setting(
        "linear",
        "course of the learning rate after warm-up, over the budget; rsqrt: inverse square root of the fraction",
        ("linear", "cosine", "constant", "rsqrt"),
    )
    beta1: float = _setting(0.9, "Adam's decay of the first moment")
    beta2: float = _setting(0.98, "Adam's decay of the second moment")
    epsilon: float = _setting(1e-6, "Adam's epsilon")
    weight_decay: float = _setting(0.01, "decoupled weight decay per step, times the learning rate")
    clip_norm: float = _setting(0.0, "global gradient norm is clipped to this; 0: never")
    decay: tuple[str, ...] = _setting(
        (r".*/(kernel|token|position)",), "parameters that decay: regular expressions over whole paths"
    )
    freeze: tuple[str, ...] = _setting((), "parameters that stay fixed: regular expressions over whole paths")


@dataclasses.dataclass(frozen=True)
class Eval:
    every_seconds: float = _setting(0.0, "training seconds between evaluations; 0: no such rule")
    every_steps: int = _setting(0, "steps between evaluations; 0: no such rule")
    examples: int = _setting(
        0, "rows or examples at most per split during training and in `analyse`; 0: all. The final one uses all"
    )
    batch_size: int = _setting(0, "rows or examples per evaluation step; 0: optimizer.batch_size")
    latency: tuple[int, ...] = _setting(
        (), "finetune, compress, evaluate: time the model on batches of these sizes, at data.length; empty: never"
    )


@dataclasses.dataclass(frozen=True)
class Decode:
    beams: int = _setting(4, "hypotheses of the beam search; 1: greedy")
    alpha: float = _setting(0.6, "exponent of the length penalty ((5 + length) / 6) ** alpha; 0: none")
    extra: int = _setting(50, "tokens that a translation may have more than its source")
    nbest: int = _setting(1, "predict: translations written of each sentence; above 1 with their scores, as a TSV")
    batch_size: int = _setting(32, "sentences decoded at once")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every_seconds: float = _setting(300.0, "training seconds between checkpoints; 0: no such rule")
    every_steps: int = _setting(0, "steps between checkpoints; 0: no such rule")
    keep: int = _setting(2, "checkpoints kept")
    keep_every_steps: int = _setting(
        0, "steps between checkpoints that are kept whatever `keep` says, for `tlc analyse`; 0: none"
    )
    average: int = _setting(0, "translate: the result is the mean of this many last checkpoints; 0 or 1: the last one")


@dataclasses.dataclass(frozen=True)
class Init:
    source: str = dataclasses.field(
        default="",
        metadata={
            "doc": "workdir, checkpoint, artifact or hf:FOLDER of a public encoder to start from; empty: from scratch",
            "choices": (),
            "alias": "from",
        },
    )


@dataclasses.dataclass(frozen=True)
class Compress:
    when: str = _setting("after", "compress after finetuning (paper 1), or before it", ("after", "before"))
    step: float = _setting(0.15, "sparsity added per round of iterative pruning; 1: all at once")
    recover: float = _setting(0.995, "a round of recovery ends at this share of the dense accuracy; 0: no recovery")
    recover_epochs: float = _setting(1.0, "epochs of recovery at most after each round of pruning")
    cache: str = _setting("", "directory where recipes for one model share pruning rounds; empty: none is shared")
    recover_evals: int = _setting(10, "evaluations in an epoch of recovery, to see whether accuracy is back")


@dataclasses.dataclass(frozen=True)
class Impl:
    mesh: str = _setting("data=-1", "devices per axis, e.g. data=2,fsdp=4,tensor=1; -1: all that are left")
    processes: str = _setting(
        "auto", "of this run: auto (as the environment says), one, or HOST:PORT,COUNT,INDEX with process 0's address"
    )
    sharding: tuple[str, ...] = _setting(
        (), "PATTERN=AXES before the shipped rules, an axis, several joined by +, or - for each dimension"
    )
    microbatch: int | str = _setting(
        0,
        "share of optimizer.batch_size, in its unit, per gradient accumulation step; 0: the whole batch; auto: the "
        "largest share that fits, found by compiling",
    )
    layer_loop: str = _setting("scan", "how layers run: one scanned body, or unrolled", ("scan", "unrolled"))
    remat: bool = _setting(False, "recompute a layer's activations in the backward pass")
    matmul: str = _setting(
        "float32",
        "matrix products: float32; mix (bfloat16 in, float32 out, rest float32); bfloat16 (activations too)",
        ("float32", "mix", "bfloat16"),
    )
    dropout_keys: str = _setting("rbg", "random generator of masking and dropout", ("rbg", "threefry2x32"))
    prefetch: int = _setting(2, "batches prepared ahead by a background thread")
    threads: int = _setting(0, "threads for tokenising; 0: one per core")
    log_seconds: float = _setting(2.0, "seconds between lines of metrics at most")
    compilation_cache: str = _setting("", "directory of JAX's persistent compilation cache; empty: none")
    tensorboard: bool = _setting(False, "also write TensorBoard events (extra `tensorboard`)")


@dataclasses.dataclass(frozen=True)
class Predict:
    input: str = _setting("", "file to read: .txt, .tsv, .csv or .jsonl, each also .gz")
    output: str = _setting("", "file to write; empty: standard output")


@dataclasses.dataclass(frozen=True)
class Analyse:
    parts: tuple[str, ...] = _setting(
        ("error", "sensitivity", "convergence"),
        "what is looked into: how far each matrix is from what it was, what it costs to compress each alone, and how "
        "each checkpoint of the run takes compression",
    )


@dataclasses.dataclass(frozen=True)
class Export:
    format: str = _setting("hf", "hf: a folder for Hugging Face transformers; onnx: an ONNX model", ("hf", "onnx"))


@dataclasses.dataclass(frozen=True)
class Study:
    sizes: tuple[str, ...] = _setting((), "encoders as LAYERSxHIDDEN")
    encoders: tuple[str, ...] = _setting((), "encoders that are trained already, each as init.from names it")
    translators: tuple[str, ...] = _setting((), "translators as LAYERSxHIDDEN, the layers of each side")
    pretrain_seeds: tuple[int, ...] = _setting((0,), "one run of each encoder and translator for each of these")
    seeds: tuple[int, ...] = _setting((0,), "one finetuning run of each pretrained encoder for each of these")
    recipes: tuple[str, ...] = _setting(("dense",), "compression recipes applied to each finetuned model")
    translator_recipes: tuple[str, ...] = _setting((), "those applied to each translator; empty: recipes")
    scratch: tuple[str, ...] = _setting(
        (), "sizes that are also finetuned from random weights, as twins to compare with"
    )
    finetune: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"doc": "settings of every finetuning run, as a partial config", "choices": ()},
    )
    tasks: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"doc": "task name -> settings of its finetuning runs, as a partial config", "choices": ()},
    )
    translation: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"doc": "settings of translation runs, as a partial config over the study's own", "choices": ()},
    )
    megabytes: tuple[float, ...] = _setting((), "deployment budgets (10^6 bytes) that the report picks models for")


@dataclasses.dataclass(frozen=True)
class Bench:
    task: str = _setting(
        "pretrain",
        "what is measured: pretraining, decoding translations, or compressing by `recipe`",
        ("pretrain", "decode", "compress"),
    )
    rounds: int = _setting(5, "rounds; medians are reported")
    steps: int = _setting(10, "training steps per round")
    seconds: float = _setting(20.0, "training seconds of the short real run that goodput is measured on")
    source: int = _setting(32, "decoding: tokens of every source sentence")
    generated: int = _setting(40, "decoding: tokens generated for every sentence")


@dataclasses.dataclass(frozen=True)
class Plan:
    topology: str = _setting("", "TPU slice to plan for, such as v5e:16x16 or v4:2x2x4; empty: the devices at hand")
    seconds: float = _setting(20.0, "devices at hand: seconds that steps of each size are timed for at most; 0: none")


@dataclasses.dataclass(frozen=True)
class Config:
    """A resolved configuration."""

    seed: int = _setting(0, "with it and the step everything random is fixed")
    seeds: tuple[int, ...] = _setting((), "finetune: one run per seed, in seed-K/, and a summary; empty: `seed` alone")
    data: Data = _section(Data, "sources")
    tokenizer: Tokenizer = _section(Tokenizer, "tokenizer")
    model: Model = _section(Model, "encoder")
    objective: Objective = _section(Objective, "what is minimised in pretraining and translation")
    budget: Budget = _section(Budget, "what a run may spend; the first limit used up stops it")
    optimizer: Optimizer = _section(Optimizer, "AdamW")
    init: Init = _section(Init, "starting point")
    recipe: str = _setting("dense", "compression, e.g. prune:0.75,scope=global+quantize:4,per=channel")
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
    del settings.impl.microbatch  # its type would stay that of its value, and it is a number or a word
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
            hint = f"; did you mean {prefix}{close[0]}?" if close else f"; known here: {', '.join(sorted(fields))}"
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
            raise InputError(f"config.{where}={value!r} must be one of {', '.join(map(str, choices))}")
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
    raise InputError(f"config.{where}={value!r} must be of type {hint.__name__ if isinstance(hint, type) else hint}")
