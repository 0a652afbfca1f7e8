"""Predictions of a study and of the layout that Zhong et al. released."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tlc_jax.core.errors import InputError
from tlc_jax.statistics.instances import decaying_bound, ensemble
from tlc_jax.statistics.variance import decompose
from tlc_jax.study.predictions import from_release, from_study

CLASSES = ("entailment", "neutral", "contradiction")


def random_probabilities(rng, instances):
    return rng.dirichlet(np.ones(3), instances)


@pytest.fixture
def release(tmp_path):
    """A folder of two sizes, three pretraining seeds, two finetunings and two checkpoints."""
    rng = np.random.default_rng(0)
    texts = [("A man sleeps.", f"Person {i} rests.") for i in range(12)]
    texts[7] = texts[3]  # an input that occurs twice
    items = [
        {"guid": f"dev_matched-{i}", "label": CLASSES[i % 3], "text_a": a, "text_b": b}
        for i, (a, b) in enumerate(texts)
    ]
    data = {"train": [], "predict": items, "label_list": CLASSES, "task_name": "mnli"}
    (tmp_path / "data.json").write_text(json.dumps(data))
    (tmp_path / "results").mkdir()
    for size in ("MINI", "LARGE"):
        for p in (1, 2, 3):
            for f in (1, 2):
                for epoch in (9, 12):
                    path = tmp_path / "results" / f"s{size}p{p}f{f}epoch{epoch}over3.tsv"
                    np.savetxt(path, random_probabilities(rng, 12), "%.6f", delimiter="\t")
    return tmp_path


def test_release_is_read_in_the_order_of_its_seeds(release):
    small, large = from_release(release, ("MINI", "LARGE"))
    assert (small.name, large.name) == ("MINI", "LARGE")
    assert small.probabilities.shape == (12, 3, 2, 2, 3)
    one = np.loadtxt(release / "results" / "sLARGEp2f1epoch12over3.tsv")
    np.testing.assert_allclose(large.probabilities[:, 1, 0, 1], one, atol=1e-6)
    np.testing.assert_array_equal(small.instances.labels, np.arange(12) % 3)
    right = one.argmax(1) == np.arange(12) % 3
    np.testing.assert_array_equal(large.correct()[:, 1, 0], right)
    assert decompose(large.correct_by_checkpoint()).variances.shape == (3, 12)
    labels = small.instances.labels[:, None]
    ensembles = [ensemble(x.probabilities[:, :, :, -1]) == labels for x in (small, large)]
    assert decaying_bound(*ensembles).independent


def test_inputs_that_occur_twice_are_dropped_with_all_their_copies(release):
    family = from_release(release)[0]
    unique = family.instances.unique()
    assert np.flatnonzero(~unique).tolist() == [3, 7]
    kept = family.take(unique)
    assert kept.probabilities.shape[0] == len(kept.instances.texts) == 10
    np.testing.assert_array_equal(kept.correct(), family.correct()[unique])


def missing_epoch(folder):
    (folder / "results" / "sMINIp2f1epoch9over3.tsv").unlink()


def short_row(folder):
    path = folder / "results" / "sMINIp1f1epoch9over3.tsv"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].rpartition("\t")[0]
    path.write_text("\n".join(lines))


def short_file(folder):
    path = folder / "results" / "sMINIp1f1epoch9over3.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


def no_probabilities(folder):
    path = folder / "results" / "sMINIp1f1epoch9over3.tsv"
    np.savetxt(path, np.full((12, 3), 0.7), delimiter="\t")


def not_numbers(folder):
    path = folder / "results" / "sMINIp1f1epoch9over3.tsv"
    np.savetxt(path, np.full((12, 3), np.nan), delimiter="\t")


def unknown_label(folder):
    path = folder / "data.json"
    path.write_text(path.read_text().replace('"label": "neutral"', '"label": "maybe"', 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_epoch, "sMINIp2f1epoch9over3.tsv is missing"),
        (short_row, "sMINIp1f1epoch9over3.tsv has a bad row"),
        (short_file, "is 11 rows x 3 classes, not 12 x 3"),
        (no_probabilities, "row 0 is not a list of probabilities that sum to 1"),
        (not_numbers, "row 0 is not a list of probabilities"),
        (unknown_label, "is not the data.json of a release"),
        (lambda folder: (folder / "data.json").unlink(), "data.json does not exist"),
    ],
)
def test_damaged_release_is_refused_in_one_line(release, damage, message):
    damage(release)
    with pytest.raises(InputError, match=message) as caught:
        from_release(release)
    assert "\n" not in str(caught.value)


@pytest.fixture
def study(tmp_path):
    """(workdir, rows) of a study of two sizes with two seeds of each level."""
    rng, rows = np.random.default_rng(1), []
    for params, layers, hidden in ((100, 1, 64), (300, 2, 128)):
        for p in (0, 1):
            for s in (0, 1):
                job = f"compress-{layers}x{hidden}-p{p}-s{s}"
                folder = tmp_path / "jobs" / job / "predictions"
                folder.mkdir(parents=True)
                np.savez(
                    folder / "valid.npz",
                    ids=np.arange(9),
                    labels=np.arange(9) % 3,
                    probabilities=random_probabilities(rng, 9).astype(np.float32),
                )
                size = {"layers": layers, "hidden": hidden, "params": params}
                seeds = {"pretrain_seed": p, "seed": s}
                rows.append({"job": job, "task": "nli", "recipe": "dense", **size, **seeds})
    return tmp_path, rows


def test_study_gives_one_family_per_model(study):
    workdir, rows = study
    small, large = from_study(workdir, rows[::-1], "valid")
    assert (small.name, large.name) == ("1x64 dense", "2x128 dense")
    assert small.probabilities.shape == (9, 2, 2, 1, 3)
    path = workdir / "jobs" / "compress-2x128-p1-s0" / "predictions" / "valid.npz"
    np.testing.assert_array_equal(large.probabilities[:, 1, 0, 0], np.load(path)["probabilities"])


def test_study_with_a_missing_run_or_other_instances_is_refused(study):
    workdir, rows = study
    with pytest.raises(InputError, match="2x128 dense lacks the run of pretraining seed 1 and"):
        from_study(workdir, rows[:-1], "valid")
    with pytest.raises(InputError, match="does not exist: the job kept no predictions"):
        from_study(workdir, rows, "test")
    path = workdir / "jobs" / rows[-1]["job"] / "predictions" / "valid.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "ids": arrays["ids"][::-1]})
    with pytest.raises(InputError, match="answers other instances, or in another order"):
        from_study(workdir, rows, "valid")
