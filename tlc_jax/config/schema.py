"""The sections of a config: every setting, its unit and its default, declared once. `config` puts them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from tlc_jax.config.durations import UNITS, Amounts


def setting(default: Any, doc: str, choices: tuple[Any, ...] = ()) -> Any:
    """A field with its documentation and, where not every value of its type will do, those that will."""
    return dataclasses.field(default=default, metadata={"doc": doc, "choices": choices})


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
        128, "tokens per packed row (pretraining) or at most per example (finetuning)"
    )
    holdout: float = setting(
        0.005, "fraction of rows held out for validation where data.valid is empty"
    )
    subsample: float = setting(
        1.0, "fraction of the training rows or examples to use, chosen by the seed"
    )
    max_ratio: float = setting(
        4.0,
        "translation: pairs are left out whose one side has over this many times the tokens of the other; 0: none",
    )
    buckets: int = setting(
        8, "translation: widths of batches at most, in training and decoding; each is compiled once"
    )


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    path: str = setting(
        "",
        "SentencePiece model or tokenizer.json to load; empty: train one and store it in data.cache",
    )
    vocab_size: int = setting(32768, "pieces, special and byte pieces included")
    train_bytes: int = setting(20_000_000, "bytes of text at most that the tokenizer is trained on")


@dataclasses.dataclass(frozen=True)
class Model:
    HEAD_SIZE: ClassVar[int] = 64  # where settings leave it open

    layers: int = setting(12, "Transformer layers")
    hidden: int = setting(768, "width of the residual stream")
    heads: int = setting(0, "attention heads; 0: hidden / head_size, or hidden / 64")
    head_size: int = setting(0, "width of an attention head; 0: hidden / heads")
    ffn: int = setting(0, "width of the feed-forward layer; 0: 4 x hidden")
    max_length: int = setting(128, "learned positions")
    dropout: float = setting(
        0.1, "dropout after embeddings and sub-layers and in heads (never inside attention)"
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
        "layers are normalised at their inputs (pre) or, as in BERT, after their sums (post)",
        ("pre", "post"),
    )
    norm_epsilon: float = setting(1e-5, "what layer normalisation adds to the variance")
    activation: str = setting(
        "gelu",
        "of feed-forward layers and the masked-language head; gelu_tanh: the approximation by tanh",
        ("gelu", "gelu_tanh", "relu"),
    )
    token_types: int = setting(0, "kinds of segments that have an embedding, as in BERT; 0: none")
    separator: int = setting(
        0, "with token types: the id after whose first place in a row type 1 begins"
    )
    padding: int = setting(
        0, "id of the padding that attention leaves out; the tokenizer decides it"
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
        0.1, "translation: share of a target's weight that is spread over all tokens"
    )
    mask_rate: float = setting(0.15, "fraction of positions to predict in masked-language training")
    mask_token: float = setting(0.8, "of these, the fraction replaced by <mask>")
    random_token: float = setting(0.1, "of these, the fraction replaced by a random ordinary token")


@dataclasses.dataclass(frozen=True)
class Budget:
    seconds: float = setting(0.0, "training seconds; 0: no such limit")
    steps: int = setting(0, "optimizer steps; 0: no such limit")
    examples: int = setting(0, "rows or examples seen; 0: no such limit")
    tokens: int = setting(0, "tokens seen, padding included; 0: no such limit")
    epochs: float = setting(0.0, "passes over the training data; 0: no such limit")
    flops: float = setting(0.0, "floating-point operations by our formula; 0: no such limit")
    clock: str = setting(
        "measured",
        "seconds by the clock, or turned once into steps after timing 100 of them",
        ("measured", "benchmark"),
    )
    charge: str = setting(
        "training",
        "what counts as spent seconds: training steps alone, or everything",
        ("training", "total"),
    )

    def limits(self) -> Amounts:
        return Amounts(**{unit: getattr(self, unit) for unit in UNITS})


@dataclasses.dataclass(frozen=True)
class Optimizer:
    batch_size: int = setting(
        256, "per step: sequences to pretrain, examples to finetune, target tokens to translate"
    )
    learning_rate: float = setting(5e-4, "peak learning rate")
    reference_width: int = setting(
        0,
        "hidden width that learning_rate is meant for; others get it times sqrt(this / hidden); 0: all the same",
    )
    warmup: float = setting(
        0.06, "fraction of the budget over which the learning rate rises linearly"
    )
    schedule: str = setting(
        "linear",
        "course of the learning rate after warm-up, over the budget; rsqrt: inverse square root of the fraction",
        ("linear", "cosine", "constant", "rsqrt"),
    )
    beta1: float = setting(0.9, "Adam's decay of the first moment")
    beta2: float = setting(0.98, "Adam's decay of the second moment")
    epsilon: float = setting(1e-6, "Adam's epsilon")
    weight_decay: float = setting(0.01, "decoupled weight decay per step, times the learning rate")
    clip_norm: float = setting(0.0, "global gradient norm is clipped to this; 0: never")
    decay: tuple[str, ...] = setting(
        (r".*/(kernel|token|position)",),
        "parameters that decay: regular expressions over whole paths",
    )
    freeze: tuple[str, ...] = setting(
        (), "parameters that stay fixed: regular expressions over whole paths"
    )


@dataclasses.dataclass(frozen=True)
class Eval:
    every_seconds: float = setting(0.0, "training seconds between evaluations; 0: no such rule")
    every_steps: int = setting(0, "steps between evaluations; 0: no such rule")
    examples: int = setting(
        0,
        "rows or examples at most per split during training and in `analyse`; 0: all. The final one uses all",
    )
    batch_size: int = setting(0, "rows or examples per evaluation step; 0: optimizer.batch_size")
    latency: tuple[int, ...] = setting(
        (),
        "finetune, compress, evaluate: time the model on batches of these sizes, at data.length; empty: never",
    )


@dataclasses.dataclass(frozen=True)
class Decode:
    beams: int = setting(4, "hypotheses of the beam search; 1: greedy")
    alpha: float = setting(
        0.6, "exponent of the length penalty ((5 + length) / 6) ** alpha; 0: none"
    )
    extra: int = setting(50, "tokens that a translation may have more than its source")
    nbest: int = setting(
        1, "predict: translations written of each sentence; above 1 with their scores, as a TSV"
    )
    batch_size: int = setting(32, "sentences decoded at once")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    every_seconds: float = setting(300.0, "training seconds between checkpoints; 0: no such rule")
    every_steps: int = setting(0, "steps between checkpoints; 0: no such rule")
    keep: int = setting(2, "checkpoints kept")
    keep_every_steps: int = setting(
        0,
        "steps between checkpoints that are kept whatever `keep` says, for `tlc analyse`; 0: none",
    )
    average: int = setting(
        0, "translate: the result is the mean of this many last checkpoints; 0 or 1: the last one"
    )


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
    when: str = setting(
        "after", "compress after finetuning (paper 1), or before it", ("after", "before")
    )
    step: float = setting(0.15, "sparsity added per round of iterative pruning; 1: all at once")
    recover: float = setting(
        0.995, "a round of recovery ends at this share of the dense accuracy; 0: no recovery"
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
        "of this run: auto (as the environment says), one, or HOST:PORT,COUNT,INDEX with process 0's address",
    )
    sharding: tuple[str, ...] = setting(
        (),
        "PATTERN=AXES before the shipped rules, an axis, several joined by +, or - for each dimension",
    )
    microbatch: int | str = setting(
        0,
        "share of optimizer.batch_size, in its unit, per gradient accumulation step; 0: the whole batch; auto: the "
        "largest share that fits, found by compiling",
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
    prefetch: int = setting(2, "batches prepared ahead by a background thread")
    threads: int = setting(0, "threads for tokenising; 0: one per core")
    log_seconds: float = setting(2.0, "seconds between lines of metrics at most")
    compilation_cache: str = setting(
        "", "directory of JAX's persistent compilation cache; empty: none"
    )
    tensorboard: bool = setting(False, "also write TensorBoard events (extra `tensorboard`)")


@dataclasses.dataclass(frozen=True)
class Predict:
    input: str = setting("", "file to read: .txt, .tsv, .csv or .jsonl, each also .gz")
    output: str = setting("", "file to write; empty: standard output")


@dataclasses.dataclass(frozen=True)
class Analyse:
    parts: tuple[str, ...] = setting(
        ("error", "sensitivity", "convergence"),
        "what is looked into: how far each matrix is from what it was, what it costs to compress each alone, and how "
        "each checkpoint of the run takes compression",
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
        (), "encoders that are trained already, each as init.from names it"
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
        (), "those applied to each translator; empty: recipes"
    )
    analyses: tuple[str, ...] = setting(
        (), "recipes that every pretrained encoder of sizes is analysed under"
    )
    scratch: tuple[str, ...] = setting(
        (), "sizes that are also finetuned from random weights, as twins to compare with"
    )
    finetune: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"doc": "settings of every finetuning run, as a partial config", "choices": ()},
    )
    tasks: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={
            "doc": "task name -> settings of its finetuning runs, as a partial config",
            "choices": (),
        },
    )
    translation: Mapping[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={
            "doc": "settings of translation runs, as a partial config over the study's own",
            "choices": (),
        },
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
        20.0, "devices at hand: seconds that steps of each size are timed for at most; 0: none"
    )
