"""What decoding is compared with: the beam search of Hugging Face transformers and that of CTranslate2.

All sides translate the same sentences with the same weights: ours is exactly mBART's architecture, and one that
CTranslate2 can describe. A very unlikely </s> makes every search take as many steps as it may, so that all generate
the same number of tokens. Each function returns a callable that translates once and returns the best translations.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tlc_jax import config as configs
from tlc_jax.bench import peers
from tlc_jax.core.errors import InputError
from tlc_jax.core.mesh import Placement
from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY, PAD, UNK
from tlc_jax.models.layers import Shape
from tlc_jax.models.network import Params, translator
from tlc_jax.tasks.translation import search

Translate = Callable[[], list[list[int]]]
"""Translates all sentences; the best translation's tokens of each, without <s>."""

_NEVER = -100.0
"""Output bias of tokens that no search is to choose; finite, so that the scores of those that must end stay numbers."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Sentences to translate and the model to do it with.

    Attributes:
      params: of ours, float32.
      source_BxS: tokens, none of them padding.
      generated: tokens of every translation.
    """

    model: configs.Model
    decode: configs.Decode
    vocab_size: int
    params: Params
    source_BxS: np.ndarray
    generated: int

    @staticmethod
    def random(config: configs.Config) -> Work:
        """Random weights and sentences of the sizes that `config` names."""
        bench, vocab_size = config.bench, config.tokenizer.vocab_size
        params = translator(config.model, vocab_size, configs.Impl()).init(
            jax.random.key(config.seed)
        )
        params["output_bias"] = params["output_bias"].at[:FIRST_ORDINARY].set(_NEVER)
        rng = np.random.default_rng(config.seed)
        source_BxS = rng.integers(
            FIRST_ORDINARY, vocab_size, (config.decode.batch_size, bench.source), np.int32
        )
        return Work(config.model, config.decode, vocab_size, params, source_BxS, bench.generated)


def check_lengths(config: configs.Config) -> None:
    """Raises `InputError` if sentences of the lengths in `bench` do not fit the model."""
    for name in ("source", "generated"):
        length = getattr(config.bench, name)
        if not 1 <= length <= config.model.max_length:
            raise InputError(
                f"bench.{name}={length} is not in 1 to model.max_length={config.model.max_length}"
            )


def require_packages() -> None:
    """Raises `InputError` unless the peers are installed, without importing them."""
    peers.require_transformers()
    if importlib.util.find_spec("ctranslate2") is None:
        raise InputError("--peers needs CTranslate2: pip install 'tlc_jax[peers]'")


def our_search(work: Work, impl: configs.Impl, placement: Placement) -> Translate:
    """The search that `evaluate` and `predict` run."""
    network = translator(work.model, work.vocab_size, impl)
    settings = dataclasses.replace(work.decode, extra=work.generated - work.source_BxS.shape[1])
    params = placement.put_params(work.params)
    source = placement.put_batch({"source": work.source_BxS})["source"]
    compiled = jax.jit(functools.partial(search, network, settings))

    def run() -> list[list[int]]:
        found = jax.device_get(compiled(params, source))
        best = zip(found.tokens_BxKxT[:, 0], found.lengths_BxK[:, 0], strict=True)
        return [tokens[:length].tolist() for tokens, length in best]

    return run


def transformers_search(work: Work) -> Translate:
    """`generate` of Hugging Face's mBART in PyTorch, float32; with matrix products by oneDNN, as in `peers`."""
    import torch
    import transformers

    torch.set_float32_matmul_precision("medium")
    transformers.logging.set_verbosity_error()
    shape = Shape.of(work.model, configs.Impl())
    config = transformers.MBartConfig(
        vocab_size=work.vocab_size,
        d_model=shape.hidden,
        max_position_embeddings=shape.max_length,
        activation_function="gelu",
        **{f"{side}_layers": shape.layers for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": shape.heads for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": shape.ffn for side in ("encoder", "decoder")},
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.MBartForConditionalGeneration(config).eval()
    weights = {
        name: torch.from_numpy(np.array(array))
        for name, array in _mbart_weights(work.params).items()
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= _TIED, (missing, unexpected)
    model.to(device)
    tokens = torch.as_tensor(work.source_BxS, dtype=torch.long, device=device)
    mask = torch.ones_like(tokens)

    def run() -> list[list[int]]:
        found = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            num_beams=work.decode.beams,
            do_sample=False,
            length_penalty=work.decode.alpha,
            min_new_tokens=work.generated,
            max_new_tokens=work.generated,
            use_cache=True,
        )
        return [row[1:] for row in found.tolist()]

    return run


_TIED = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"}


def _mbart_weights(params: Params) -> dict[str, np.ndarray]:
    """Our parameters by mBART's names, kernels as [outputs, inputs]."""
    params = jax.tree.map(np.asarray, params)
    position = params["embedding"]["position"]
    # mBART's first two rows belong to no position.
    position = np.concatenate([np.zeros_like(position, shape=(2, position.shape[1])), position])
    weights = {
        "model.shared.weight": params["embedding"]["token"],
        "final_logits_bias": params["output_bias"][None],
    }

    def put(name: str, p: dict[str, np.ndarray]) -> None:
        weights[f"{name}.weight"] = p["kernel"].T if "kernel" in p else p["scale"]
        weights[f"{name}.bias"] = p["bias"]

    for side in ("encoder", "decoder"):
        root = f"model.{side}"
        weights[f"{root}.embed_positions.weight"] = position
        put(f"{root}.layernorm_embedding", params["embedding"]["norm"])
        put(f"{root}.layer_norm", params[f"{side}_norm"])
        for index, block in enumerate(_layers(params[side]["blocks"])):
            layer = f"{root}.layers.{index}"
            attentions = {"attention": "self_attn", "cross": "encoder_attn"}
            for ours, theirs in attentions.items():
                if ours in block:
                    put(f"{layer}.{theirs}_layer_norm", block[f"{ours}_norm"])
                    for part in ("query", "key", "value", "output"):
                        short = "out" if part == "output" else part[0]
                        put(f"{layer}.{theirs}.{short}_proj", block[ours][part])
            put(f"{layer}.final_layer_norm", block["ffn_norm"])
            put(f"{layer}.fc1", block["ffn"]["up"])
            put(f"{layer}.fc2", block["ffn"]["down"])
    return weights


def ctranslate2_search(work: Work, compute_type: str) -> Translate:
    """CTranslate2 with as many threads as there are cores to use, `compute_type` being "float32" or "int8"."""
    import ctranslate2

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        _ctranslate2_model(work).save(folder)
        engine = ctranslate2.Translator(
            folder, device="auto", compute_type=compute_type, inter_threads=1, intra_threads=cores
        )
    sources = [[str(token) for token in row] for row in work.source_BxS]

    def run() -> list[list[int]]:
        results = engine.translate_batch(
            sources,
            beam_size=work.decode.beams,
            length_penalty=work.decode.alpha,
            min_decoding_length=work.generated,
            max_decoding_length=work.generated,
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    return run


def _ctranslate2_model(work: Work) -> Any:
    from ctranslate2.specs import TransformerSpec, common_spec

    shape = Shape.of(work.model, configs.Impl())
    params = jax.tree.map(np.asarray, work.params)
    spec = TransformerSpec.from_config(
        shape.layers,
        shape.heads,
        pre_norm=True,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
    )

    def put_norm(target: Any, p: dict[str, np.ndarray]) -> None:
        target.gamma, target.beta = p["scale"], p["bias"]

    def put_dense(target: Any, *parts: dict[str, np.ndarray]) -> None:
        target.weight = np.concatenate([p["kernel"].T for p in parts])
        target.bias = np.concatenate([p["bias"] for p in parts])

    for side, target in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        embedding = target.embeddings[0] if side == "encoder" else target.embeddings
        embedding.weight = params["embedding"]["token"]
        target.scale_embeddings = False
        target.position_encodings.encodings = params["embedding"]["position"]
        put_norm(target.layernorm_embedding, params["embedding"]["norm"])
        put_norm(target.layer_norm, params[f"{side}_norm"])
        for layer, block in zip(target.layer, _layers(params[side]["blocks"]), strict=True):
            own = block["attention"]
            put_norm(layer.self_attention.layer_norm, block["attention_norm"])
            put_dense(layer.self_attention.linear[0], own["query"], own["key"], own["value"])
            put_dense(layer.self_attention.linear[1], own["output"])
            if side == "decoder":
                cross = block["cross"]
                put_norm(layer.attention.layer_norm, block["cross_norm"])
                put_dense(layer.attention.linear[0], cross["query"])
                put_dense(layer.attention.linear[1], cross["key"], cross["value"])
                put_dense(layer.attention.linear[2], cross["output"])
            put_norm(layer.ffn.layer_norm, block["ffn_norm"])
            put_dense(layer.ffn.linear_0, block["ffn"]["up"])
            put_dense(layer.ffn.linear_1, block["ffn"]["down"])
    spec.decoder.projection.weight = params["embedding"]["token"]
    spec.decoder.projection.bias = params["output_bias"]

    names = [str(token) for token in range(work.vocab_size)]
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = (
        names[BOS],
        names[EOS],
        names[UNK],
    )
    spec.config.decoder_start_token = names[BOS]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.validate()
    spec.optimize()
    return spec


def _layers(blocks: Params) -> list[Params]:
    """Each layer's parameters by themselves; those that layers share, once for each."""
    count = max(leaf.shape[0] for leaf in jax.tree.leaves(blocks))
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i if leaf.shape[0] > 1 else 0], blocks)
        for i in range(count)
    ]
