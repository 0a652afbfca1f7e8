"""Tiny encoders as others publish them (config.json, safetensors, tokenizer), and their outputs."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import scipy.special
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

BASES = {"bert": "bert.", "roberta": "roberta.", "roberta-prelayernorm": "roberta_prelayernorm."}
ARCHITECTURES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "roberta-prelayernorm": "RobertaPreLayerNorm",
}
HIDDEN, HEADS, FFN, LAYERS, POSITIONS = 32, 2, 48, 2, 80
LABELS = ("no", "yes")


def word_pieces() -> tokenizers.Tokenizer:
    """A BERT vocabulary: special pieces 0, 3, 4, 5 and 6, unused ones, letters, and a few words."""
    letters = [*string.ascii_lowercase, *string.punctuation]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [
        "[PAD]",
        "[unused0]",
        "[unused1]",
        *special[1:],
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    pieces += ["the", "red", "cat", "dog", "sees", "##ly"]
    made = tokenizers.Tokenizer(
        models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(special)
    made.post_processor = processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4))
    return made


def byte_pairs() -> tokenizers.Tokenizer:
    """RoBERTa's kind: <s> 0, <pad> 1, </s> 2, <unk> 3, bytes, two merges, and <mask> last."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "re", "red", "<mask>"]
    made = tokenizers.Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [("r", "e"), ("re", "d")])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        ["<s>", "<pad>", "</s>", "<unk>", tokenizers.AddedToken("<mask>", lstrip=True)]
    )
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return made


def tokenizer_of(family: str) -> tokenizers.Tokenizer:
    return word_pieces() if family == "bert" else byte_pairs()


def write_tokenizer(folder: Path, family: str) -> None:
    """With the truncation and the padding that published files often have set."""
    made = tokenizer_of(family)
    made.enable_truncation(8)
    made.enable_padding(length=8, pad_id=0 if family == "bert" else 1)
    made.save(str(folder / "tokenizer.json"))


def settings_of(family: str, head: str = "Model", **changes) -> dict:
    """A config.json; `head` is what follows the family in the name of their class."""
    return {
        "architectures": [ARCHITECTURES[family] + head],
        "model_type": family,
        "vocab_size": tokenizer_of(family).get_vocab_size(),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "hidden_act": "gelu",
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2 if family == "bert" else 1,
        "layer_norm_eps": 1e-12 if family == "bert" else 1e-5,
        "pad_token_id": 0 if family == "bert" else 1,
        "id2label": {str(number): label for number, label in enumerate(LABELS)},
        **changes,
    }


def tensors_of(settings: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors by their names, as a model of this class is saved."""
    draw = np.random.default_rng(seed)
    family, head = (
        settings["model_type"],
        settings["architectures"][0].removeprefix(ARCHITECTURES[settings["model_type"]]),
    )
    D, F, V = settings["hidden_size"], settings["intermediate_size"], settings["vocab_size"]
    base = "" if head == "Model" else BASES[family]
    made: dict[str, np.ndarray] = {}

    def table(name: str, *shape: int) -> None:
        made[f"{name}.weight"] = draw.normal(0, 0.3, shape).astype(np.float32)

    def dense(name: str, inputs: int, outputs: int) -> None:
        table(name, outputs, inputs)
        made[f"{name}.bias"] = draw.normal(0, 0.3, outputs).astype(np.float32)

    def norm(name: str) -> None:
        made[f"{name}.weight"] = draw.normal(1, 0.3, D).astype(np.float32)
        made[f"{name}.bias"] = draw.normal(0, 0.3, D).astype(np.float32)

    table(f"{base}embeddings.word_embeddings", V, D)
    table(f"{base}embeddings.position_embeddings", settings["max_position_embeddings"], D)
    table(f"{base}embeddings.token_type_embeddings", settings["type_vocab_size"], D)
    norm(f"{base}embeddings.LayerNorm")
    for number in range(settings["num_hidden_layers"]):
        layer = f"{base}encoder.layer.{number}"
        for name in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{name}", D, D)
        dense(f"{layer}.attention.output.dense", D, D)
        dense(f"{layer}.intermediate.dense", D, F)
        dense(f"{layer}.output.dense", F, D)
        for name in NORMS[family]:
            norm(f"{layer}.{name}")
    if family == "roberta-prelayernorm":
        norm(f"{base}LayerNorm")
    if family == "bert" and head != "ForMaskedLM":
        dense(f"{base}pooler.dense", D, D)
    if head == "ForMaskedLM":
        lm = "cls.predictions" if family == "bert" else "lm_head"
        dense(f"{lm}.transform.dense" if family == "bert" else f"{lm}.dense", D, D)
        norm(f"{lm}.transform.LayerNorm" if family == "bert" else f"{lm}.layer_norm")
        made[f"{lm}.bias"] = draw.normal(0, 0.3, V).astype(np.float32)
    if head == "ForSequenceClassification" and family == "bert":
        dense("classifier", D, len(settings["id2label"]))
    elif head == "ForSequenceClassification":
        dense("classifier.dense", D, D)
        dense("classifier.out_proj", D, len(settings["id2label"]))
    return made


NORMS = {
    "bert": ("attention.output.LayerNorm", "output.LayerNorm"),
    "roberta": ("attention.output.LayerNorm", "output.LayerNorm"),
    "roberta-prelayernorm": ("attention.LayerNorm", "intermediate.LayerNorm"),
}


def write_model(folder: Path, family: str, head: str = "Model", **changes) -> dict[str, np.ndarray]:
    """Writes a whole folder; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(family, head, **changes)
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = tensors_of(settings)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(folder, family)
    return tensors


def hidden_states(
    settings: dict, tensors: dict, tokens: np.ndarray, types: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """What their encoder computes, in float64 and in their names."""
    family = settings["model_type"]
    p = {
        name.removeprefix(BASES[family]): np.asarray(tensor, np.float64)
        for name, tensor in tensors.items()
    }

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + settings["layer_norm_eps"]
        )
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    def dense(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def attend(x, layer):
        def heads(name):
            return (
                dense(x, f"{layer}.attention.self.{name}")
                .reshape(*x.shape[:2], HEADS, -1)
                .transpose(0, 2, 1, 3)
            )

        scores = heads("query") @ heads("key").swapaxes(-1, -2) / np.sqrt(x.shape[-1] / HEADS)
        shares = scipy.special.softmax(np.where(mask[:, None, None, :], scores, -np.inf), -1)
        return dense(
            (shares @ heads("value")).transpose(0, 2, 1, 3).reshape(x.shape),
            f"{layer}.attention.output.dense",
        )

    def feed_forward(x, layer):
        x = dense(x, f"{layer}.intermediate.dense")
        return dense(x * scipy.special.ndtr(x), f"{layer}.output.dense")

    first = 0 if family == "bert" else settings["pad_token_id"] + 1
    x = (
        p["embeddings.word_embeddings.weight"][tokens]
        + p["embeddings.token_type_embeddings.weight"][types]
    )
    x = norm(
        x + p["embeddings.position_embeddings.weight"][first : first + tokens.shape[1]],
        "embeddings.LayerNorm",
    )
    for number in range(settings["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for sublayer, name in zip((attend, feed_forward), NORMS[family], strict=True):
            if family == "roberta-prelayernorm":
                x = x + sublayer(norm(x, f"{layer}.{name}"), layer)
            else:
                x = norm(x + sublayer(x, layer), f"{layer}.{name}")
    return norm(x, "LayerNorm") if family == "roberta-prelayernorm" else x
