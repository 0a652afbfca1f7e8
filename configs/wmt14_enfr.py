"""Train an English-French translator of the paper's grid on WMT14, and score it on two newstests.

    tlc translate --config=configs/wmt14_enfr.py:6x512 --workdir=runs/enfr --config.data.dir=DIR

The argument is LAYERSxHIDDEN (layers of encoder and of decoder); the paper's grid is 2x128, 2x256,
6x512, 6x1024 and 8x2048. Any pairs will do: --config.data.train=files:train.en+train.fr
--config.data.valid=files:valid.en+valid.fr --config.data.test="".
newstest2013 serves for validation; newstest2014, the test split, is translated once, at the end.
Expected time: budget.seconds; not run here yet, because it needs an accelerator.
Expected result: in the paper 6x512 reaches 0.345 (most likely of tensor2tensor's `approx_bleu`)
after 50,000 seconds on one V100, and 6x1024 overtakes it soon after.

The paper names tensor2tensor and its standard settings and gives no numbers; these are that
library's `transformer_base` (`transformer_big` differs only in its dropout of 0.3).
"""

from ml_collections import ConfigDict

from configs.common import sized


def get_config(size: str = "6x512") -> ConfigDict:
    config = sized(size)
    config.model.max_length = 256
    config.model.dropout = 0.1
    # Embeddings with a deviation of 1/sqrt(hidden), as there. Positions start as sinusoids and are
    # learned.
    config.model.init = "fan_in"

    config.data.train = "tfds:wmt14_translate/fr-en:train"
    config.data.valid = "newstest2013=tfds:wmt14_translate/fr-en:validation"
    config.data.test = "newstest2014=tfds:wmt14_translate/fr-en:test"
    config.data.text, config.data.pair = "en", "fr"
    config.data.length = 256
    config.tokenizer.vocab_size = 32768
    config.tokenizer.train_bytes = 200_000_000

    config.objective.label_smoothing = 0.1
    config.optimizer.batch_size = 8 * 4096  # target tokens; there 4096 a replica
    # 2 / sqrt(hidden) / sqrt(8000 steps) at 512, falling with the square root of the width.
    config.optimizer.learning_rate = 9.9e-4
    config.optimizer.reference_width = 512
    config.optimizer.schedule = "rsqrt"
    config.optimizer.warmup = 0.04  # 8,000 steps of 200,000; here a fraction of the budget
    config.optimizer.beta2 = 0.997
    config.optimizer.epsilon = 1e-9
    config.optimizer.weight_decay = 0.0

    config.budget.seconds = 50_000.0
    config.eval.every_seconds = 1000.0
    config.eval.examples = 1024
    config.checkpoint.keep = 8
    return config
