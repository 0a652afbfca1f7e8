"""Models that `transformers` made and saved compute the same here, from the text on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_imported_models import load, network_of
from tests.helpers import public_models as public

pytestmark = pytest.mark.peers
TEXTS = [
    ("The red cat sees a dog, quickly!", "the dog"),
    ("red", "a cat sees nothing: naïve café, 红 cat 😀"),
    ("the cat doesn't", "x\ty  z"),
]


@pytest.fixture
def transformers():
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    return module


def saved(transformers, folder: Path, family: str, head: str):
    """A random model of theirs, saved in the folder with a tokenizer."""
    import torch

    torch.manual_seed(0)
    settings = public.settings_of(family)
    architecture = public.ARCHITECTURES[family]
    config = getattr(transformers, f"{architecture}Config")(
        **{
            name: value
            for name, value in settings.items()
            if name not in ("architectures", "model_type")
        },
        attn_implementation="eager",
    )
    model = getattr(transformers, f"{architecture}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # as drawn they hardly differ from nothing
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    public.write_tokenizer(folder, family)
    return model


def tokenizer_of(transformers, folder: Path, family: str):
    special = (
        ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
        if family == "bert"
        else ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
    )
    names = dict(
        zip(
            ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"), special, strict=True
        )
    )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), **names
    )
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
@pytest.mark.parametrize("family", tuple(public.BASES))
def test_outputs_agree(transformers, tmp_path, family, head) -> None:
    import torch

    peer = saved(transformers, tmp_path, family, head)
    model = load(tmp_path)
    firsts, seconds = zip(*TEXTS, strict=True)
    batch = tokenizer_of(transformers, tmp_path, family)(
        list(firsts), list(seconds), padding="longest", truncation=False, return_tensors="pt"
    )
    special = model.tokenizer.special
    for row, (a, b) in enumerate(
        zip(model.tokenizer.encode(firsts), model.tokenizer.encode(seconds), strict=True)
    ):
        framed = [special.start, *a, *special.between, *b, special.end]
        assert batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist() == framed
    if family == "bert":
        assert set(batch["token_type_ids"].flatten().tolist()) == {0, 1}
    with torch.no_grad():
        theirs = peer(**batch, output_hidden_states=True)
    tokens, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy().astype(bool)
    network = network_of(model)
    hidden = np.asarray(network.apply(model.params, tokens, mask, None, method="encode"))
    last = (
        theirs.last_hidden_state
        if head == "Model"
        else getattr(peer, peer.base_model_prefix)(**batch)[0].detach()
    )
    np.testing.assert_allclose(hidden[mask], last.numpy()[mask], atol=1e-4)
    if head == "ForSequenceClassification":
        np.testing.assert_allclose(
            network.apply(model.params, tokens, mask), theirs.logits.numpy(), atol=1e-4
        )
    if head == "Model" and family == "bert":
        pooler = model.pooler["classifier"]["dense"]
        pooled = np.tanh(hidden[:, 0] @ pooler["kernel"] + pooler["bias"])
        np.testing.assert_allclose(pooled, theirs.pooler_output.numpy(), atol=1e-4)


@pytest.mark.parametrize("family", tuple(public.BASES))
def test_masked_language_logits_of_a_full_row_agree(transformers, tmp_path, family) -> None:
    import torch

    peer = saved(transformers, tmp_path, family, "ForMaskedLM")
    model = load(tmp_path)
    special = model.tokenizer.special
    ids = model.tokenizer.encode(["the red cat sees", "a dog"])
    tokens = np.array(
        [[special.start, *ids[0], special.end, *ids[1], special.mask, special.end]], np.int32
    )
    types = (
        np.cumsum(tokens == special.end, 1) - (tokens == special.end)
        if family == "bert"
        else np.zeros_like(tokens)
    )
    with torch.no_grad():
        theirs = peer(torch.tensor(tokens), token_type_ids=torch.tensor(types)).logits.numpy()
    positions = np.arange(tokens.shape[1])[None]
    np.testing.assert_allclose(
        network_of(model).apply(model.params, tokens, positions), theirs, atol=2e-4
    )


def test_the_original_tokenizers_classes_read_vocabularies_alike(transformers, tmp_path) -> None:
    pieces = public.word_pieces().get_vocab()
    public.write_model(tmp_path, "bert")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text(
        "".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.__getitem__))
    )
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    texts = [text for pair in TEXTS for text in pair]
    assert (
        load(tmp_path).tokenizer.encode(texts)
        == theirs(texts, add_special_tokens=False)["input_ids"]
    )
