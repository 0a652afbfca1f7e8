"""An encoder that others trained, finetuned on two tasks and compressed in every way.

    tlc study  --config=configs/study_imported.py:ENCODER,DIR --workdir=runs/imported
    tlc report --workdir=runs/imported

ENCODER is a Hugging Face folder (config.json, model.safetensors, tokenizer.json). DIR holds sentiment/{train,dev}.tsv
(label, sentence) and nli/{train,dev}.tsv (label, premise, hypothesis).
Time on two cores: two hours for 22.7 M parameters. What it showed is in the README.
"""

from ml_collections import ConfigDict

from tlc_jax.config import default_config


def get_config(where: str = "encoder,data") -> ConfigDict:
    encoder, _, folder = where.partition(",")
    config = default_config()
    config.data.length = 48
    config.impl.matmul = "mix"
    config.impl.layer_loop = "unrolled"
    config.impl.compilation_cache = "runs/compilation-cache"
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
    # Fewer and shorter rounds of pruning than in the paper (15 %, an epoch): each recipe is to take minutes here.
    config.compress.step = 0.3
    config.compress.recover_epochs = 0.25
    config.compress.recover_evals = 2
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
        {"sentiment": _task(folder, "sentiment", 1.0), "nli": _task(folder, "nli", 3.0)}
    )
    config.study.tasks.nli.data.subsample = 0.25  # rough labels, made by rule: for the plumbing
    return config


def _task(folder: str, name: str, epochs: float) -> dict:
    data = {"train": f"files:{folder}/{name}/train.tsv", "valid": f"files:{folder}/{name}/dev.tsv"}
    return {"data": data, "budget": {"epochs": epochs}}
