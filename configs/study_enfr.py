"""The paper's translation study on your own pairs: widths and depths, one budget, then compression.

    tlc study  --config=configs/study_enfr.py:DIR --workdir=runs/enfr
    tlc report --workdir=runs/enfr

DIR holds train.en.gz and train.fr.gz, line by line translations of each other, and valid.en and
valid.fr. The grid is scaled down for a laptop: a base, a deeper and a wider model. The paper's own
is --config.study.translators="('2x128', '2x256', '6x512', '6x1024', '8x2048')" with the settings of
configs/wmt14_enfr.py.
Expected time: about an hour on two cores.
Expected result: docs/results/study_enfr.md.
"""

from ml_collections import ConfigDict

from configs.common import recover_briefly
from tlc_jax.config import default_config


def get_config(folder: str = "data") -> ConfigDict:
    config = default_config()
    config.data.train = f"files:{folder}/train.en.gz+{folder}/train.fr.gz"
    config.data.valid = f"files:{folder}/valid.en+{folder}/valid.fr"
    config.data.length = 64
    config.data.buckets = 6
    config.model.max_length = 128
    config.model.dropout = 0.1
    config.model.init = "fan_in"
    config.tokenizer.vocab_size = 8192
    config.tokenizer.train_bytes = 20_000_000

    # tensor2tensor's optimizer for a budget of minutes: small batches, a higher peak, a longer
    # warm-up, and a rate that falls to zero with the budget, because no run continues from here.
    config.objective.label_smoothing = 0.1
    config.optimizer.batch_size = 1024
    config.optimizer.learning_rate = 3e-3
    config.optimizer.reference_width = 128
    config.optimizer.warmup = 0.1
    config.optimizer.schedule = "linear"
    config.optimizer.epsilon = 1e-9
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.budget.seconds = 900.0
    config.budget.clock = "benchmark"
    config.eval.every_seconds = 60.0
    config.eval.examples = 512

    config.study.translators = ("2x128", "6x128", "2x256")
    config.study.recipes = (
        "dense",
        "quantize:8",
        "quantize:4",
        "prune:0.6",
        "prune:0.6+quantize:8",
    )
    recover_briefly(config, evaluations=4)
    return config
