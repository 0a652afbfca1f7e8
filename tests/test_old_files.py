"""Files of version 0.1.0 are still read: a checkpoint, an artifact, a stopped run and a study.

That version made the archive from small labelled texts; `config.py` in it holds the settings.
"""

import json
import tarfile
from pathlib import Path

import pytest

from tlc_jax.cli.main import main

ARCHIVE = Path(__file__).parent / "golden" / "files_of_0_1_0.tar.gz"


@pytest.fixture
def old_files(tmp_path, monkeypatch):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    # The settings in the archive name their data by relative paths.
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("run", ["finetuned", "compressed"])
def test_old_checkpoints_and_artifacts_predict_what_they_predicted(old_files, run):
    arguments = [f"--init={run}", "--config.predict.input=texts.tsv"]
    assert main(["predict", *arguments, "--config.predict.output=found.tsv"]) == 0
    found = [line.split("\t") for line in (old_files / "found.tsv").read_text().splitlines()]
    known = [line.split("\t") for line in (old_files / f"{run}.tsv").read_text().splitlines()]
    assert found[0] == known[0] and len(found) == len(known) == 31
    for now, before in zip(found[1:], known[1:], strict=True):
        assert now[0] == before[0]
        assert [float(p) for p in now[1:]] == pytest.approx(
            [float(p) for p in before[1:]], abs=1e-4
        )


def test_old_artifact_has_the_size_and_accuracy_that_it_had(old_files):
    assert main(["evaluate", "--init=compressed", "--workdir=evaluated"]) == 0
    now, before = (
        json.loads((old_files / run / "result.json").read_text())
        for run in ("evaluated", "compressed")
    )
    for name in ("accuracy", "bytes_artifact", "nonzero", "params", "recipe"):
        assert now[name] == before[name]
    assert now["bytes_ideal"] < before["bytes_ideal"]  # it had a bitmap


def test_old_stopped_run_goes_on_to_the_end_of_its_budget(old_files):
    assert main(["finetune", "--config=config.py", "--workdir=stopped"]) == 0
    now = json.loads((old_files / "stopped" / "result.json").read_text())
    whole = json.loads((old_files / "whole.json").read_text())
    assert (now["steps"], now["epochs"]) == (whole["steps"], pytest.approx(whole["epochs"]))
    # Several fake devices add up in another order than the one that the archive was made on.
    assert now["valid_loss"] == pytest.approx(whole["valid_loss"], rel=0.5)
    assert now["accuracy"] == whole["accuracy"]


def test_old_study_is_reported(old_files, capsys):
    assert main(["report", "--workdir=study"]) == 0
    assert (old_files / "study" / "report" / "index.html").exists()
    assert "2x64" in capsys.readouterr().out
