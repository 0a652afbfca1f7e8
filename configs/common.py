"""Settings that several experiments share; not an experiment itself."""

from ml_collections import ConfigDict

from tlc_jax.config import default_config, parse_size


def sized(size: str) -> ConfigDict:
    """The default settings with the model of a size.

    Args:
      size: LAYERSxHIDDEN, such as 12x768.
    """
    config = default_config()
    config.model.layers, config.model.hidden = parse_size(size)
    return config


def finetune_as_roberta(config: ConfigDict) -> None:
    """Sets RoBERTa's finetuning of a GLUE task.

    The paper refers to RoBERTa and gives no numbers. fairseq's GLUE recipe has 10 epochs, batch 32,
    peak 1e-5, 6 % of warm-up, linear decay, weight decay 0.1, dropout 0.1 and no clipping. Two
    departures: fairseq keeps the best checkpoint by validation accuracy; we report the last one,
    which does not select on the split that it reports. And there is no dropout on attention
    probabilities.
    """
    config.data.length = 128
    config.optimizer.batch_size = 32
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup = 0.06
    config.optimizer.weight_decay = 0.1
    config.model.dropout = 0.1
    config.budget.epochs = 10.0
    config.eval.every_steps = 5000
    config.eval.batch_size = 256


def recover_briefly(config: ConfigDict, evaluations: int) -> None:
    """Sets fewer and shorter rounds of pruning than the paper's 15 % and an epoch.

    Args:
      evaluations: number of evaluations in an epoch of recovery.
    """
    config.compress.step = 0.3
    config.compress.recover_epochs = 0.25
    config.compress.recover_evals = evaluations


def labelled_files(folder: str, task: str) -> dict[str, str]:
    """The data settings of a task whose tables are FOLDER/TASK/{train,dev}.tsv."""
    return {
        "train": f"files:{folder}/{task}/train.tsv",
        "valid": f"files:{folder}/{task}/dev.tsv",
    }
