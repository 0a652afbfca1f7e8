"""An encoder that others trained, finetuned on two tasks and compressed in every way.

    tlc study  --config=configs/study_imported.py:ENCODER,DIR --workdir=runs/imported
    tlc report --workdir=runs/imported

ENCODER is a Hugging Face folder (config.json, model.safetensors, tokenizer.json). DIR holds
sentiment/{train,dev}.tsv (label, sentence) and nli/{train,dev}.tsv (label, premise, hypothesis).
Expected time: two hours on two cores for 22.7 M parameters.
Expected result: docs/results/study_imported.md.
"""

from ml_collections import ConfigDict

from configs.common import labelled_files, recover_briefly
from tlc_jax.config import default_config


def get_config(where: str = "encoder,data") -> ConfigDict:
    encoder, _, folder = where.partition(",")
    config = default_config()
    config.data.length = 48
    config.eval.latency = (1, 32)
    config.study.encoders = (f"hf:{encoder}",)
    config.study.seeds = (0, 1, 2)
    config.study.recipes = (
        "dense",
        "quantize:8",
        "quantize:4",
        "quantize:3,group=64,range=mse",
        "quantize:8,only=embedding/.*+quantize:3,group=64,range=mse",
        "quantize:3,group=64,aware=true+finetune",
        "prune:0.6+quantize:4",
        "prune:0.6,scope=tensor+quantize:4",
        "prune:2:4,embeddings=false+quantize:8",
        "prune:0.6,gradual=true+finetune+quantize:4",
        "remove:0.5,of=neurons+quantize:8",
        "remove:0.34,of=layers+quantize:8",
    )
    recover_briefly(config, evaluations=2)  # each recipe takes minutes
    config.study.finetune = ConfigDict(
        {
            "optimizer": {
                "batch_size": 32,
                "learning_rate": 1e-4,
                "warmup": 0.1,
                "weight_decay": 0.01,
            },
            "eval": {"batch_size": 64, "examples": 512, "every_seconds": 0.0},
        }
    )
    config.study.tasks = ConfigDict(
        {
            task: {"data": labelled_files(folder, task), "budget": {"epochs": epochs}}
            for task, epochs in (("sentiment", 1.0), ("nli", 3.0))
        }
    )
    # Rough labels, made by a rule: they test the pipeline only.
    config.study.tasks.nli.data.subsample = 0.25
    return config
