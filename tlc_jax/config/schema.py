"""Every setting with its default, bounds and help text.

Sections from `data` to `eval` are science: they change results. `impl` does not, beyond rounding.
The rest drives one command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from tlc_jax.config.durations import UNITS, Amounts


def setting(default: Any, doc: str, allowed: tuple[Any, ...] | str = (), alias: str = "") -> Any:
    """A field that `resolve` checks and `tlc COMMAND --help` explains.

    Args:
      default: what holds where nothing is set.
      doc: help text; it names the unit.
      allowed: the values to choose from, or bounds such as ">= 0 and < 1"; of a tuple, both are
        for each of its items. Bounds do not concern words.
      alias: name for users, where Python reserves it.
    """
    metadata = {"doc": doc, "allowed": allowed, "alias": alias}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Data:
    train: str = setting(
        "", "source or comma-joined sources to train on; NAME=SOURCE names one, SOURCE@W weighs it"
    )
    valid: str = setting(
        "", "source or comma-joined sources to evaluate on; empty: hold out part of data.train"
    )
    dir: str = setting("", "TFDS data directory; empty: TFDS's own default")
    cache: str = setting(
        "", "directory of tokenizers and packed tokens; empty: data/ inside the workdir"
    )
    text: str = setting(
        "", "column or feature with the (first) text; empty: the usual names are tried"
    )
    pair: str = setting(
        "", "column or feature with the second text; empty: the usual names; '-': none"
    )
    label: str = setting("", "column or feature with the label; empty: 'label'")
    length: int = setting(
        128, "tokens per packed row (pretraining) or at most per example (finetuning)", ">= 8"
    )
    holdout: float = setting(
        0.005, "fraction of rows held out for validation where data.valid is empty", "> 0 and < 1"
    )
    subsample: float = setting(
        1.0, "fraction of the training rows or examples to use, chosen by the seed", "> 0 and <= 1"
    )
    max_ratio: float = setting(
        4.0,
        "translation: drop pairs where one side has over this many times the tokens of the other; 0: none",
        ">= 0",
    )
    buckets: int = setting(8, "translation: batch widths at most; each is compiled once", ">= 1")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    path: str = setting(
        "",
        "SentencePiece model or tokenizer.json to load; empty: train one and store it in data.cache",
    )
    vocab_size: int = setting(32768, "pieces, special and byte pieces included", ">= 1")
    train_bytes: int = setting(
        20_000_000, "bytes of text at most to train the tokenizer on", ">= 1"
    )


@dataclasses.dataclass(frozen=True)
class Model:
    HEAD_SIZE: ClassVar[int] = 64  # where settings leave it open

    layers: int = setting(12, "Transformer layers", ">= 1")
    hidden: int = setting(768, "width of the residual stream", ">= 1")
    heads: int = setting(0, "attention heads; 0: hidden / head_size, or hidden / 64", ">= 0")
    head_size: int = setting(0, "width of an attention head; 0: hidden / heads", ">= 0")
    ffn: int = setting(0, "width of the feed-forward layer; 0: 4 x hidden", ">= 0")
    max_length: int = setting(128, "learned positions", ">= 1")
    dropout: float = setting(
        0.1,
        "dropout after embeddings and sub-layers and in heads (never inside attention)",
        ">= 0 and < 1",
    )
    share: str = setting(
        "none", "layers that share one set of parameters", ("none", "attention", "all")
    )
    init: str = setting(
        "normal",
        "normal: all drawn with deviation 0.02; fan_in: with 1/sqrt(fan in), positions start as sinusoids",
        ("normal", "fan_in"),
    )
    norm: str = setting(
        "pre",
        "normalize the inputs of layers (pre) or, as in BERT, their sums (post)",
        ("pre", "post"),
    )
    norm_epsilon: float = setting(1e-5, "added to the variance in layer normalization", "> 0")
    activation: str = setting(
        "gelu",
        "activation of feed-forward layers and the masked-language head",
        ("gelu", "gelu_tanh", "relu"),
    )
    token_types: int = setting(0, "segment embeddings, as in BERT; 0: none", (0, 1, 2))
    separator: int = setting(
        0, "with token types: type 1 begins after the first token with this id", ">= 0"
    )
    padding: int = setting(
        0, "token id of padding, which attention ignores; the tokenizer decides it", ">= 0"
    )

    def filled(self) -> Model:
        """The same with the widths that follow from others written out."""
        heads = self.heads or self.hidden // (self.head_size or self.HEAD_SIZE)
        head_size = self.head_size or self.hidden // heads
        return dataclasses.replace(
            self, heads=heads, head_size=head_size, ffn=self.ffn or 4 * self.hidden
        )


@dataclasses.dataclass(frozen=True)
class Objective:
    label_smoothing: float = setting(
        0.1, "translation: share of the target's weight spread over all tokens", ">= 0 and < 1"
    )
    mask_rate: float = setting(
        0.15, "fraction of positions to predict in masked-language training", "> 0 and < 1"
    )
    mask_token: float = setting(0.8, "of these, the fraction replaced by <mask>", ">= 0 and <= 1")
    random_token: float = setting(
        0.1, "of these, the fraction replaced by a random ordinary token", ">= 0 and <= 1"
    )


@dataclasses.dataclass(frozen=True)
class Budget:
    seconds: float = setting(0.0, "training seconds; 0: no such limit", ">= 0")
    steps: int = setting(0, "optimizer steps; 0: no such limit", ">= 0")
    examples: int = setting(0, "rows or examples seen; 0: no such limit", ">= 0")
    tokens: int = setting(0, "tokens seen, padding included; 0: no such limit", ">= 0")
    epochs: float = setting(0.0, "passes over the training data; 0: no such limit", ">= 0")
    flops: float = setting(
        0.0, "floating-point operations by our formula; 0: no such limit", ">= 0"
    )
    clock: str = setting(
        "measured",
        "count seconds, or convert them once to steps after timing 100 steps",
        ("measured", "benchmark"),
    )
    charge: str = setting(
        "training", "seconds that count: those of training steps, or all", ("training", "total")
    )

    @property
    def converts_seconds(self) -> bool:
        """Whether seconds are converted to steps before training."""
        return self.clock == "benchmark" and self.seconds > 0

    def limits(self) -> Amounts:
        return Amounts(**{unit: getattr(self, unit) for unit in UNITS})


@dataclasses.dataclass(frozen=True)
class Optimizer:
    batch_size: int = setting(
        256,
        "per step: sequences to pretrain, examples to finetune, target tokens to translate",
        ">= 1",
    )
    learning_rate: float = setting(5e-4, "peak learning rate", ">= 0")
    reference_width: int = setting(
        0,
        "hidden width that learning_rate is for; others get it times sqrt(this / hidden); 0: no scaling",
        ">= 0",
    )
    warmup: float = setting(
        0.06, "fraction of the budget over which the learning rate rises linearly", ">= 0 and <= 1"
    )
    schedule: str = setting(
        "linear",
        "learning rate after warm-up; rsqrt: inverse square root of the budget used",
        ("linear", "cosine", "constant", "rsqrt"),
    )
    beta1: float = setting(0.9, "Adam's decay of the first moment")
    beta2: float = setting(0.98, "Adam's decay of the second moment")
    epsilon: float = setting(1e-6, "Adam's epsilon")
    weight_decay: float = setting(0.01, "decoupled weight decay per step, times the learning rate")
    clip_norm: float = setting(0.0, "global gradient norm is clipped to this; 0: never", ">= 0")
    decay: tuple[str, ...] = setting(
        (r".*/(kernel|token|position)",),
        "parameters that decay: regular expressions over whole paths",
    )
    freeze: tuple[str, ...] = setting(
        (), "parameters that stay fixed: regular expressions over whole paths"
    )


@dataclasses.dataclass(frozen=True)
class Eval:
    every_seconds: float = setting(
        0.0, "training seconds between evaluations; 0: no such rule", ">= 0"
    )
    every_steps: int = setting(0, "steps between evaluations; 0: no such rule", ">= 0")
    examples: int = setting(
        0, "rows or examples at most per split, except in the final evaluation; 0: all", ">= 0"
    )
    batch_size: int = setting(
        0, "rows or examples per evaluation step; 0: optimizer.batch_size", ">= 0"
    )
    latency: tuple[int, ...] = setting(
        (),
        "finetune, compress, evaluate: time the model on batches of these sizes, at data.length; empty: never",
        ">= 1",
    )


@dataclasses.dataclass(frozen=True)
class Decode:
    beams: int = setting(4, "hypotheses of the beam search; 1: greedy", ">= 1")
    alpha: float = setting(
        0.6, "exponent of the length penalty ((5 + length) / 6) ** alpha; 0: none", ">= 0"
    )
    extra: int = setting(50, "tokens that a translation may have more than its source", ">= 0")
    nbest: int = setting(
        1,
        "predict: translations written of each sentence; above 1 with their scores, as a TSV",
        ">= 1",
    )
    batch_size: int = setting(32, "sentences decoded at once", ">= 1")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every_seconds: float = setting(
        300.0, "training seconds between checkpoints; 0: no such rule", ">= 0"
    )
    every_steps: int = setting(0, "steps between checkpoints; 0: no such rule", ">= 0")
    keep: int = setting(2, "checkpoints kept", ">= 1")
    keep_every_steps: int = setting(
        0, "steps between checkpoints that are never deleted, for `tlc analyze`; 0: none", ">= 0"
    )
    average: int = setting(
        0,
        "translate: the result is the mean of this many last checkpoints; 0 or 1: the last one",
        ">= 0",
    )


@dataclasses.dataclass(frozen=True)
class Init:
    source: str = setting(
        "",
        "workdir, checkpoint, artifact or hf:FOLDER of a public encoder; empty: from scratch",
        alias="from",
    )


@dataclasses.dataclass(frozen=True)
class Compress:
    when: str = setting(
        "after", "compress after finetuning (paper 1), or before it", ("after", "before")
    )
    step: float = setting(
        0.15, "sparsity added per round of iterative pruning; 1: all at once", "> 0 and <= 1"
    )
    recover: float = setting(
        0.995,
        "a round of recovery ends at this share of the dense accuracy; 0: no recovery",
        ">= 0 and <= 1",
    )
    recover_epochs: float = setting(1.0, "epochs of recovery at most after each round of pruning")
    cache: str = setting(
        "", "directory where recipes for one model share pruning rounds; empty: none is shared"
    )
    recover_evals: int = setting(
        10, "evaluations in an epoch of recovery, to see whether accuracy is back"
    )


@dataclasses.dataclass(frozen=True)
class Impl:
    mesh: str = setting(
        "data=-1", "devices per axis, e.g. data=2,fsdp=4,tensor=1; -1: all that are left"
    )
    processes: str = setting(
        "auto",
        "processes of this run: auto (from the environment), one, or HOST:PORT,COUNT,INDEX of process 0",
    )
    sharding: tuple[str, ...] = setting(
        (), "PATTERN=AXES rules that come first; per dimension an axis, several joined by +, or -"
    )
    microbatch: int | str = setting(
        0,
        "part of optimizer.batch_size per gradient accumulation step, at most (the largest divisor "
        "up to it is used); 0: whole batch; auto: the largest that fits, found by compiling",
        ">= 0",
    )
    layer_loop: str = setting(
        "scan", "how layers run: one scanned body, or unrolled", ("scan", "unrolled")
    )
    remat: bool = setting(False, "recompute a layer's activations in the backward pass")
    matmul: str = setting(
        "float32",
        "matrix products: float32; mix (bfloat16 in, float32 out, rest float32); bfloat16 (activations too)",
        ("float32", "mix", "bfloat16"),
    )
    dropout_keys: str = setting(
        "rbg", "random generator of masking and dropout", ("rbg", "threefry2x32")
    )
    prefetch: int = setting(2, "batches prepared ahead by a background thread", ">= 0")
    threads: int = setting(0, "threads for tokenizing; 0: one per core")
    log_seconds: float = setting(2.0, "seconds between lines of metrics at most")
    compilation_cache: str = setting(
        "", "directory of JAX's persistent compilation cache; empty: none"
    )
    tensorboard: bool = setting(False, "also write TensorBoard events (extra `tensorboard`)")


@dataclasses.dataclass(frozen=True)
class Predict:
    input: str = setting(
        "", "file to read: .tsv, .csv, .jsonl or text, each also .gz; - is standard input"
    )
    output: str = setting("", "file to write; empty: standard output")


@dataclasses.dataclass(frozen=True)
class Analyze:
    parts: tuple[str, ...] = setting(
        ("error", "sensitivity", "convergence"),
        "error: distance of each matrix from the original; sensitivity: loss when one is compressed "
        "alone; convergence: how well each checkpoint of the run compresses",
        ("error", "sensitivity", "convergence"),
    )


@dataclasses.dataclass(frozen=True)
class Export:
    format: str = setting(
        "hf", "hf: a folder for Hugging Face transformers; onnx: an ONNX model", ("hf", "onnx")
    )


@dataclasses.dataclass(frozen=True)
class Study:
    sizes: tuple[str, ...] = setting((), "encoders as LAYERSxHIDDEN")
    encoders: tuple[str, ...] = setting(
        (), "encoders that are already trained, named as in init.from"
    )
    translators: tuple[str, ...] = setting(
        (), "translators as LAYERSxHIDDEN, the layers of each side"
    )
    pretrain_seeds: tuple[int, ...] = setting(
        (0,), "one run of each encoder and translator for each of these"
    )
    seeds: tuple[int, ...] = setting(
        (0,), "one finetuning run of each pretrained encoder for each of these"
    )
    recipes: tuple[str, ...] = setting(
        ("dense",), "compression recipes applied to each finetuned model"
    )
    translator_recipes: tuple[str, ...] = setting(
        (), "recipes applied to each translator; empty: recipes"
    )
    analyses: tuple[str, ...] = setting(
        (), "recipes to analyze every pretrained encoder of sizes under"
    )
    scratch: tuple[str, ...] = setting(
        (), "sizes that are also finetuned from random weights, to compare with"
    )
    finetune: Mapping[str, Any] = setting(
        {}, "settings of every finetuning run, as a partial config"
    )
    tasks: Mapping[str, Any] = setting(
        {}, "task name -> settings of its finetuning runs, as a partial config"
    )
    translation: Mapping[str, Any] = setting(
        {}, "settings of translation runs, as a partial config over the study's own"
    )
    megabytes: tuple[float, ...] = setting(
        (), "deployment budgets (10^6 bytes) that the report picks models for"
    )


@dataclasses.dataclass(frozen=True)
class Bench:
    task: str = setting(
        "pretrain",
        "what is measured: pretraining, decoding translations, or compressing by `recipe`",
        ("pretrain", "decode", "compress"),
    )
    rounds: int = setting(5, "rounds; medians are reported")
    steps: int = setting(10, "training steps per round")
    seconds: float = setting(
        20.0, "training seconds of the short real run that goodput is measured on"
    )
    source: int = setting(32, "decoding: tokens of every source sentence")
    generated: int = setting(40, "decoding: tokens generated for every sentence")


@dataclasses.dataclass(frozen=True)
class Plan:
    topology: str = setting(
        "", "TPU slice to plan for, such as v5e:16x16 or v4:2x2x4; empty: the devices at hand"
    )
    seconds: float = setting(
        20.0,
        "devices at hand: seconds that steps of each size are timed for at most; 0: none",
        ">= 0",
    )
