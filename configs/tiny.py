"""A model that trains in seconds, to try the commands out. Its numbers mean nothing.

    tlc pretrain  --config=configs/tiny.py --workdir=runs/tiny
    tlc finetune  --config=configs/tiny.py:nli --workdir=runs/tiny-nli --config.init.from=runs/tiny
    tlc translate --config=configs/tiny.py:translation --workdir=runs/tiny-translator

The argument is the kind of synthetic data: text (default), nli or translation.
Expected: each command ends within half a minute on two cores, at chance or little above.
"""

from ml_collections import ConfigDict

from tlc_jax.config import default_config


def get_config(kind: str = "text") -> ConfigDict:
    config = default_config()
    # The validation split is the small one: it is generated and tokenized in a second.
    config.data.train = f"toy:{kind}:valid"
    config.data.valid = f"toy:{kind}:valid"
    config.data.length = 32
    config.data.buckets = 1
    config.data.cache = "runs/tiny-cache"
    config.tokenizer.vocab_size = 512
    config.tokenizer.train_bytes = 200_000
    config.model.layers, config.model.hidden = 1, 64
    config.model.max_length = 64
    config.model.dropout = 0.0
    config.model.init = "fan_in"
    config.optimizer.batch_size = 512 if kind == "translation" else 32
    config.optimizer.learning_rate = 3e-3
    config.budget.steps = 30
    config.eval.examples = 128
    config.eval.batch_size = 512 if kind == "translation" else 64
    config.decode.beams = 2
    config.decode.extra = 5
    config.compress.recover = 0.0  # prune in one go, without training
    return config
