from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Size
from tlc_jax.statistics.records import SPLIT, models_of, present, tidy

ROW = {"layers": 2, "hidden": 64, "params": 1000, "task": "nli", "recipe": "dense", "job": "first",
       "nonzero": 1000, "bytes_artifact": 4_000_000, "accuracy": 0.75}  # fmt: skip


def test_rows_of_older_studies_get_what_they_lack():
    later = ROW | {"kind": "encoder", "seed": 1, "init": "scratch", "bits": 4, "job": "second"}
    frame = tidy([ROW, later, ROW | {"seed": None, "bits": None, "job": "third"}])
    assert list(frame["kind"]) == ["encoder"] * 3
    assert list(frame["seed"]) == [0, 1, 0] and frame["seed"].dtype == int
    assert list(frame["pretrained"]) == [True, False, True]
    assert list(frame["bits"]) == [32, 4, 32] and list(frame["sparsity"]) == [0, 0, 0]
    assert list(frame["size"]) == [Size(1000, 2, 64, ENCODER)] * 3


def test_scores_are_fractions_of_the_highest_score_of_their_kind():
    translator = ROW | {"kind": "translator", "task": "translation", "bleu": 25.0}
    frame = tidy([ROW, translator])
    assert list(frame["score"]) == [0.75, 0.25]
    assert [size.kind for size in frame["size"]] == [ENCODER, TRANSLATOR]


def test_a_size_has_the_parameters_of_the_whole_model_of_its_smallest_head():
    removed = ROW | {"recipe": "remove:0.5,of=layers", "params": 600}
    frame = tidy([ROW, removed, ROW | {"task": "larger head", "params": 1010}])
    assert {size.params for size in frame["size"]} == {1000}


def test_columns_that_only_some_rows_have_are_read_without_gaps():
    split = ROW | {"accuracy_by_split": {"matched": 0.7}, "seed": 1, "job": "second"}
    frame = tidy([ROW, split])
    assert present(frame, f"{SPLIT}matched") == [0.7] and present(frame, "chrf") == []
    (model,) = models_of(frame, [], lambda jobs: {})
    assert model.summary(f"{SPLIT}matched").written(".1f", 100) == "70.0"
    assert model.summary("chrf").written(".1f") == ""
    assert model.jobs == ("first", "second") and model.scores == {(0, 0): 0.75, (0, 1): 0.75}
