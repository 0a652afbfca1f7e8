"""The beam searches that decoding compares: ours, Hugging Face transformers', and CTranslate2's.

All of them translate the same sentences with the same weights, because our translator is exactly
mBART's architecture. A very unlikely </s> makes every search take as many steps as it may, so all
generate the same number of tokens. Each `..._search` returns a function that translates all
sentences once and returns the tokens of the best translations, without <s>.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tlc_jax.bench.peers import prepare_torch, torch_device
from tlc_jax.config import Config, Impl
from tlc_jax.core.mesh import Placement
from tlc_jax.core.params import flatten
from tlc_jax.data.tokenizer import BOS, EOS, FIRST_ORDINARY, PAD, UNK
from tlc_jax.models.layers import Shape
from tlc_jax.models.network import Params, translator
from tlc_jax.runs import auto, session
from tlc_jax.tasks.translation import search

Search = Callable[[], list[list[int]]]

# Output bias of tokens that no search is to choose. It is finite, so that the scores of hypotheses
# that must end stay numbers.
_NEVER = -100.0


def random_weights(config: Config) -> Params:
    """Random float32 parameters of a translator that avoids the special tokens."""
    network = translator(config.model, config.tokenizer.vocab_size, Impl())
    params = network.init(jax.random.key(config.seed))
    params["output_bias"] = params["output_bias"].at[:FIRST_ORDINARY].set(_NEVER)
    return params


def random_source(config: Config) -> np.ndarray:
    """Random source sentences without padding: int32 [decode.batch_size, bench.source]."""
    shape = (config.decode.batch_size, config.bench.source)
    rng = np.random.default_rng(config.seed)
    return rng.integers(FIRST_ORDINARY, config.tokenizer.vocab_size, shape, np.int32)


def our_search(config: Config, matmul: str, placement: Placement | None = None) -> Search:
    """The search of `tlc evaluate` and `tlc predict`.

    Args:
      config: the model and the sizes.
      matmul: value of impl.matmul.
      placement: where arrays live; None: on the devices that `config` names.
    """
    config, own = session.open_devices(auto.with_matmul(config, matmul))
    placement = placement or own
    network = translator(config.model, config.tokenizer.vocab_size, config.impl)
    extra = config.bench.generated - config.bench.source
    settings = dataclasses.replace(config.decode, extra=extra)
    params = placement.put_params(random_weights(config))
    source = placement.put_batch({"source": random_source(config)})["source"]
    compiled = jax.jit(functools.partial(search, network, settings))

    def run() -> list[list[int]]:
        found = jax.device_get(compiled(params, source))
        best = zip(found.tokens_BxKxT[:, 0], found.lengths_BxK[:, 0], strict=True)
        return [tokens[:length].tolist() for tokens, length in best]

    return run


def transformers_search(config: Config, platform: str, number_type: str) -> Search:
    """`generate` of Hugging Face's mBART in eager PyTorch.

    Args:
      config: the model and the sizes.
      platform: JAX's name of the devices to use.
      number_type: type of weights and activations, "float32" or "bfloat16".
    """
    import torch

    device = prepare_torch(platform)
    model = _mbart(config).to(device, getattr(torch, number_type))
    source = torch.as_tensor(random_source(config), dtype=torch.long, device=device)

    def run() -> list[list[int]]:
        found = model.generate(
            input_ids=source,
            attention_mask=torch.ones_like(source),
            num_beams=config.decode.beams,
            length_penalty=config.decode.alpha,
            min_new_tokens=config.bench.generated,
            max_new_tokens=config.bench.generated,
        )
        return [row[1:] for row in found.tolist()]

    return run


def ctranslate2_search(config: Config, platform: str, compute_type: str) -> Search:
    """CTranslate2, on CPUs with all cores of this process.

    Args:
      config: the model and the sizes.
      platform: JAX's name of the devices to use.
      compute_type: "float32", "float16" or "int8".
    """
    import ctranslate2
    from ctranslate2.converters.transformers import MBartLoader

    spec = MBartLoader().get_model_spec(_mbart(config))
    # Tokens are their own names. The loader would take the vocabulary from a tokenizer.
    names = [str(token) for token in range(config.tokenizer.vocab_size)]
    spec.config.bos_token = spec.config.decoder_start_token = names[BOS]
    spec.config.eos_token, spec.config.unk_token = names[EOS], names[UNK]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.validate()
    spec.optimize()
    # os.cpu_count would count cores that this process may not use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        engine = ctranslate2.Translator(
            folder,
            device=torch_device(platform),
            compute_type=compute_type,
            inter_threads=1,
            intra_threads=cores,
        )
    source = [[str(token) for token in row] for row in random_source(config)]

    def run() -> list[list[int]]:
        results = engine.translate_batch(
            source,
            beam_size=config.decode.beams,
            length_penalty=config.decode.alpha,
            min_decoding_length=config.bench.generated,
            max_decoding_length=config.bench.generated,
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    return run


def _mbart(config: Config) -> Any:
    """Hugging Face's mBART with our weights."""
    import torch
    import transformers

    shape = Shape.of(config.model, Impl())
    mbart_config = transformers.MBartConfig(
        vocab_size=config.tokenizer.vocab_size,
        d_model=shape.hidden,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.ffn,
        decoder_ffn_dim=shape.ffn,
        max_position_embeddings=shape.max_length,
        activation_function="gelu",
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        normalize_before=True,  # for CTranslate2's loader; in transformers mBART always does
    )
    model = transformers.MBartForConditionalGeneration(mbart_config).eval()
    weights = _mbart_weights(random_weights(config), shape.layers)
    # torch.tensor copies: arrays of JAX are read-only, which from_numpy warns about.
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model


_MBART_NAMES = {
    **{f"attention/{name}": f"self_attn.{name[0]}_proj" for name in ("query", "key", "value")},
    **{f"cross/{name}": f"encoder_attn.{name[0]}_proj" for name in ("query", "key", "value")},
    "attention/output": "self_attn.out_proj",
    "cross/output": "encoder_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "cross_norm": "encoder_attn_layer_norm",
    "ffn_norm": "final_layer_norm",
    "ffn/up": "fc1",
    "ffn/down": "fc2",
}


def _mbart_weights(params: Params, layers: int) -> dict[str, np.ndarray]:
    """Our parameters under mBART's names."""
    params = jax.tree.map(np.asarray, params)
    embedding = params["embedding"]
    weights = {name: embedding["token"] for name in ("model.shared.weight", "lm_head.weight")}
    weights["final_logits_bias"] = params["output_bias"][None]
    for side in ("encoder", "decoder"):
        root = f"model.{side}"
        weights[f"{root}.embed_tokens.weight"] = embedding["token"]
        # mBART's first two rows belong to no position.
        weights[f"{root}.embed_positions.weight"] = np.pad(embedding["position"], ((2, 0), (0, 0)))
        norms = {"layernorm_embedding": embedding["norm"], "layer_norm": params[f"{side}_norm"]}
        for name, norm in norms.items():
            weights[f"{root}.{name}.weight"] = norm["scale"]
            weights[f"{root}.{name}.bias"] = norm["bias"]
        for path, stacked in flatten(params[side]["blocks"]).items():
            part, _, kind = path.rpartition("/")
            for layer in range(layers):
                # Parameters that all layers share are stored once.
                value = stacked[layer] if len(stacked) > 1 else stacked[0]
                name = f"{root}.layers.{layer}.{_MBART_NAMES[part]}"
                # PyTorch's kernels are [outputs, inputs].
                weights[f"{name}.{'bias' if kind == 'bias' else 'weight'}"] = value.T
    return weights
