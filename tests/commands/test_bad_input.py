"""Bad input ends with status 2 and one line on what is wrong and how to mend it."""

from __future__ import annotations

import errno
import gzip
import json
import re
import shutil

import jax
import pytest

from tests.commands.conftest import finetune_arguments, pretrain_arguments, result_of, tlc
from tlc_jax.training.checkpoint import Checkpointer, complete_steps


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "matches no file|does not exist|no file"),
        (b"", "empty"),
        (b"label\tsentence\nyes\tgood\nno\n", "line 3"),
        (b"label\tsentence\nyes\tgood\nno\tb\xffd\n", "UTF-8"),
        (b"label\tsentence\nyes\tgood\nno\tbad\nmaybe\tso so\n", "unknown label 'maybe'"),
    ],
    ids=["missing", "empty", "short row", "not UTF-8", "unknown label"],
)
def test_labelled_files(refused, world, pretrained, tmp_path, content, says) -> None:
    file = tmp_path / "dev.tsv"
    if content is not None:
        file.write_bytes(content)
    workdir = tmp_path / "run"
    arguments = finetune_arguments("finetune", world, workdir, f"--config.init.from={pretrained}")
    line = refused(*arguments, f"--config.data.valid=files:{file}")
    assert re.search(says, line), line


def test_a_gz_that_is_cut_short(refused, world, tmp_path) -> None:
    file = tmp_path / "text.txt.gz"
    whole = gzip.compress((world / "train.txt").read_bytes())
    file.write_bytes(whole[: len(whole) // 2])
    line = refused(
        *pretrain_arguments(world, tmp_path / "run", f"--config.data.train=files:{file}")
    )
    assert "text.txt.gz" in line
    assert "cut short" in line


def test_an_unknown_tfds_name(refused, world, tmp_path) -> None:
    line = refused(
        *pretrain_arguments(
            world, tmp_path / "run", "--config.data.train=tfds:wikipedai/20230601.en"
        )
    )
    assert "wikipedai" in line


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.model.hiden=3", "did you mean"),
        ("--config.model.hidden=wide", "model.hidden"),
        ("--config.model.heads=7", "not divisible by model.heads=7"),
        ("--config.data.length=64", "beyond the model's positions"),
        ("--config.budget.steps=0", "no budget"),
        ("--config.recipe=prune:0.5", "recipe"),
        ("--config.impl.mesh=data=3", "does not fit the COUNT device"),
        ("--config.data.test=files:WORLD/nothing.txt", "nothing.txt does not exist"),
        ("--config.data.test=test=files:WORLD/valid.txt", "is in data.valid too"),
        ("--config.data.test=valid=files:WORLD/dev.tsv", "has a split 'valid' too: name this one"),
    ],
)
def test_settings(refused, world, tmp_path, flag, says) -> None:
    flag = flag.replace("WORLD", str(world))
    says = says.replace("COUNT", str(jax.device_count()))
    assert says in refused(*pretrain_arguments(world, tmp_path / "run", flag))


def test_a_noise_scale_without_parts_of_a_batch(refused, world, tmp_path) -> None:
    flags = "--config.eval.noise_scale=True", "--config.impl.mesh=fsdp=-1"
    line = refused(*pretrain_arguments(world, tmp_path / "run", *flags))
    assert "set impl.microbatch=8 or less" in line


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("prune:1.0", "1.0"),
        ("prune:-0.1", "-0.1"),
        ("quantize:1", "1"),
        ("quantize:9", "9"),
        ("purne:0.5", "prune"),
    ],
)
def test_recipes(refused, world, finetuned, tmp_path, recipe, says) -> None:
    more = (f"--config.init.from={finetuned}", f"--config.recipe={recipe}")
    assert says in refused(*finetune_arguments("compress", world, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_config(refused, world, pretrained) -> None:
    before = (pretrained / "config.json").read_text()
    line = refused(*pretrain_arguments(world, pretrained, "--config.optimizer.learning_rate=0.5"))
    assert "optimizer.learning_rate" in line
    assert "0.5" in line
    assert (pretrained / "config.json").read_text() == before


def copy_of(run, tmp_path, name: str = "copy"):
    target = tmp_path / name
    shutil.copytree(run, target)
    return target


def cut_short(folder) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_truncated_checkpoint_falls_back_to_the_one_before(world, tmp_path, caplog) -> None:
    run = tmp_path / "run"
    arguments = pretrain_arguments(
        world, run, "--config.checkpoint.every_steps=2", "--config.checkpoint.keep=3"
    )
    assert tlc(*arguments) == 0
    whole = result_of(run)
    (run / "result.json").unlink()
    cut_short(run / "checkpoints" / "6")
    assert tlc(*arguments) == 0
    assert "trying the one before" in caplog.text
    assert result_of(run)["valid_loss"] == whole["valid_loss"]
    assert result_of(run)["steps"] == whole["steps"]


def test_where_no_checkpoint_can_be_read(refused, world, pretrained, tmp_path) -> None:
    run = copy_of(pretrained, tmp_path)
    for step in complete_steps(run / "checkpoints"):
        cut_short(run / "checkpoints" / str(step))
    line = refused(
        *finetune_arguments("finetune", world, tmp_path / "run", f"--config.init.from={run}")
    )
    assert "not a readable tlc checkpoint" in line


def test_a_foreign_folder(refused, world, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    line = refused(
        *finetune_arguments(
            "finetune", world, tmp_path / "run", f"--config.init.from={tmp_path / 'photos'}"
        )
    )
    assert "holds neither a checkpoint nor an artifact of tlc" in line


def test_a_truncated_artifact(refused, compressed, tmp_path) -> None:
    run = copy_of(compressed, tmp_path)
    file = run / "artifact" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors" in refused(
        "evaluate", f"--init={run}", f"--workdir={tmp_path / 'run'}"
    )


def test_a_tokenizer_that_does_not_match(refused, world, pretrained, tmp_path) -> None:
    other = tmp_path / "other"
    more = (f"--config.data.cache={tmp_path / 'cache'}", "--config.tokenizer.vocab_size=288")
    assert tlc(*pretrain_arguments(world, other, *more)) == 0
    more = (
        f"--config.init.from={pretrained}",
        f"--config.tokenizer.path={other / 'tokenizer.model'}",
    )
    line = refused(*finetune_arguments("finetune", world, tmp_path / "run", *more))
    assert "is not the one that" in line


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    refused, world, pretrained, tmp_path, monkeypatch
) -> None:
    run = tmp_path / "run"
    arguments = pretrain_arguments(world, run, "--config.checkpoint.every_steps=2")
    save, saved = Checkpointer.save, []

    def save_until_full(self, step, state, meta) -> None:
        if saved:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.directory))
        save(self, step, state, meta)
        saved.append(step)

    monkeypatch.setattr(Checkpointer, "save", save_until_full)
    assert "No space left on device; free some space and run the same command again" in refused(
        *arguments
    )
    monkeypatch.undo()
    assert complete_steps(run / "checkpoints") == [2]
    assert tlc(*arguments) == 0
    assert result_of(run)["valid_loss"] == pytest.approx(
        result_of(pretrained)["valid_loss"], rel=1e-6
    )


def test_a_workdir_that_cannot_be_written(refused, world, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "is a file" in refused(*pretrain_arguments(world, tmp_path / "file"))


def test_results_that_were_cut_short_are_named(refused, world, pretrained, tmp_path) -> None:
    run = copy_of(pretrained, tmp_path)
    (run / "config.json").write_text(json.dumps({"seed": 0})[:-3])
    assert "config.json" in refused(*pretrain_arguments(world, run))


def test_predicting_with_a_model_that_labels_nothing(refused, world, pretrained, tmp_path) -> None:
    line = refused("predict", f"--init={pretrained}", f"--config.predict.input={world / 'dev.tsv'}")
    assert "predict needs a finetuned one" in line


def test_compressing_what_is_compressed(refused, world, compressed, tmp_path) -> None:
    more = (f"--config.init.from={compressed}", "--config.recipe=quantize:8")
    assert "is compressed already" in refused(
        *finetune_arguments("compress", world, tmp_path / "run", *more)
    )


def test_pretraining_goes_on_from_encoders_alone(refused, world, finetuned, tmp_path) -> None:
    line = refused(*pretrain_arguments(world, tmp_path / "a", f"--config.init.from={finetuned}"))
    assert "is a model of kind classifier, and mlm or encoder is needed" in line
    line = refused(
        *pretrain_arguments(world, tmp_path / "b", f"--config.init.from={tmp_path / 'nowhere'}")
    )
    assert "nowhere does not exist" in line
