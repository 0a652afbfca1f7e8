"""What our pretraining step is compared with: plain JAX, and Hugging Face transformers in PyTorch.

All sides have the same shape, batch, tokens, dropout (of hidden states, none on attention
probabilities) and AdamW. `plain_step` and `transformers_step` return a function that does steps.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tlc_jax.bench.peers import prepare_torch
from tlc_jax.bench.throughput import Variant
from tlc_jax.config import Impl, resolve
from tlc_jax.data.tokenizer import MASK
from tlc_jax.models.layers import Shape
from tlc_jax.models.network import Params, masked_language_model
from tlc_jax.runs import session
from tlc_jax.tasks.masked_lm import mask_tokens, predicted_positions
from tlc_jax.training.step import step_key


def plain_step(settings: dict[str, Any], tokens_BxL: np.ndarray) -> Variant:
    """Float32 steps of plain JAX: `x @ kernel + bias`, logits at all positions, Optax's AdamW."""
    config = resolve(settings)
    session.set_up(config)
    shape, vocab_size = Shape.of(config.model, Impl()), config.tokenizer.vocab_size
    params = masked_language_model(config.model, vocab_size, Impl()).init(jax.random.key(0))
    chosen = config.optimizer
    optimizer = optax.adamw(
        1e-4, chosen.beta1, chosen.beta2, chosen.epsilon, weight_decay=chosen.weight_decay
    )

    def loss_of(params: Params, tokens_BxL: jax.Array, key: jax.Array) -> jax.Array:
        key_mask, key_dropout = jax.random.split(key)
        masked = mask_tokens(key_mask, tokens_BxL, config.objective, vocab_size)
        logits_BxLxV = _plain_logits(params, masked.inputs_BxL, shape, key_dropout)
        loss_BxL = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, tokens_BxL)
        chosen_BxK = jnp.take_along_axis(loss_BxL, masked.positions_BxK, axis=1)
        return jnp.sum(chosen_BxK * masked.weights_BxK) / jnp.sum(masked.weights_BxK)

    def step(params: Params, state: Any, tokens_BxL: jax.Array, key: jax.Array) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(params, tokens_BxL, key)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state: list[Any] = [params, optimizer.init(params)]
    tokens, key = jnp.asarray(tokens_BxL, jnp.int32), step_key(0, 0)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            # The arrays in `state` are donated, so each step must replace them.
            state[0], state[1], loss = compiled(*state, tokens, key)
        loss.block_until_ready()  # JAX dispatches asynchronously

    return run


def _plain_logits(params: Params, tokens_BxL: jax.Array, shape: Shape, key: jax.Array) -> jax.Array:
    keys = iter(jax.random.split(key, 2 * shape.layers + 1))

    def norm(x: jax.Array, p: Params) -> jax.Array:
        return jax.nn.standardize(x, epsilon=shape.norm_epsilon) * p["scale"] + p["bias"]

    def dense(x: jax.Array, p: Params) -> jax.Array:
        return x @ p["kernel"] + p["bias"]

    def drop(x: jax.Array) -> jax.Array:
        if shape.dropout == 0.0:
            return x
        kept = jax.random.bernoulli(next(keys), 1 - shape.dropout, x.shape)
        return jnp.where(kept, x / (1 - shape.dropout), 0.0)

    embedding = params["embedding"]
    x_BxLxD = embedding["token"][tokens_BxL] + embedding["position"][: tokens_BxL.shape[1]]
    x_BxLxD = drop(norm(x_BxLxD, embedding["norm"]))
    for layer in range(shape.layers):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["blocks"])
        attention, y_BxLxD = block["attention"], norm(x_BxLxD, block["attention_norm"])
        q, k, v = (
            dense(y_BxLxD, attention[name]).reshape(*tokens_BxL.shape, shape.heads, -1)
            for name in ("query", "key", "value")
        )
        y_BxLxD = jax.nn.dot_product_attention(q, k, v).reshape(x_BxLxD.shape)
        x_BxLxD = x_BxLxD + drop(dense(y_BxLxD, attention["output"]))
        y_BxLxD = norm(x_BxLxD, block["ffn_norm"])
        y_BxLxF = jax.nn.gelu(dense(y_BxLxD, block["ffn"]["up"]), approximate=False)
        x_BxLxD = x_BxLxD + drop(dense(y_BxLxF, block["ffn"]["down"]))
    head = params["mlm_head"]
    y_BxLxD = dense(norm(x_BxLxD, params["final_norm"]), head["dense"])
    y_BxLxD = norm(jax.nn.gelu(y_BxLxD, approximate=False), head["norm"])
    return y_BxLxD @ embedding["token"].T + head["bias"]


def transformers_step(
    settings: dict[str, Any],
    tokens_BxL: np.ndarray,
    platform: str,
    masked_only: bool = True,
    bfloat16: bool = False,
    compiled: bool = False,
) -> Variant:
    """Steps of Hugging Face's pre-norm RoBERTa in PyTorch with fused AdamW and SDPA attention.

    Args:
      settings: the config as a dict.
      tokens_BxL: tokens of the batch.
      platform: JAX's name of the devices to use.
      masked_only: compute logits at the predicted positions alone, as ours does; otherwise at all
        positions, as the library does.
      bfloat16: compute in bfloat16 where autocast does; otherwise in float32.
      compiled: compile forward and backward pass with torch.compile.
    """
    import torch
    import transformers

    config, device = resolve(settings), prepare_torch(platform)
    torch.manual_seed(0)
    shape = Shape.of(config.model, Impl())
    peer_config = transformers.RobertaPreLayerNormConfig(
        vocab_size=config.tokenizer.vocab_size,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=shape.max_length + 2,  # RoBERTa leaves its first two rows unused
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=shape.norm_epsilon,
        type_vocab_size=1,
        attn_implementation="sdpa",
    )
    model = transformers.RobertaPreLayerNormForMaskedLM(peer_config).train().to(device)
    chosen = config.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=1e-4,
        betas=(chosen.beta1, chosen.beta2),
        eps=chosen.epsilon,
        weight_decay=chosen.weight_decay,
        fused=True,
    )
    tokens = torch.as_tensor(np.asarray(tokens_BxL), dtype=torch.long, device=device)
    rows, length = tokens.shape
    predicted = predicted_positions(length, config.objective.mask_rate)

    def loss_of(inputs: Any, positions: Any, targets: Any) -> Any:
        if masked_only:
            hidden = model.roberta_prelayernorm(inputs).last_hidden_state
            index = positions[:, :, None].expand(-1, -1, hidden.shape[-1])
            logits = model.lm_head(hidden.gather(1, index))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        # The library's loss leaves out labels of -100.
        labels = torch.full_like(inputs, -100).scatter(1, positions, targets)
        return model(inputs, labels=labels).loss

    if compiled:
        loss_of = torch.compile(loss_of)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            positions = torch.rand(rows, length, device=device).topk(predicted, dim=1).indices
            targets = tokens.gather(1, positions)
            inputs = tokens.scatter(1, positions, MASK)
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                loss = loss_of(inputs, positions, targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device

    return run
