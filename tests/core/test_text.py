"""Suggestions, numbers and tables."""

import pytest

from tlc_jax.core import text


def test_did_you_mean_names_the_closest_or_all():
    assert text.did_you_mean("prun", ["prune", "quantize"]) == "; did you mean prune?"
    assert text.did_you_mean("x", ["prune", "quantize"]) == "; known are prune, quantize"


def test_one_line():
    assert text.one_line(ValueError("a\n  b\tc ")) == "a b c"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(10, "10 B"), (2048, "2.00 KiB"), (300 * 2**20, "300.00 MiB"), (3 * 2**29, "1.50 GiB")],
)
def test_byte_size(count, shown):
    assert text.byte_size(count) == shown


def test_numbers_that_may_be_unknown():
    assert text.number(12345.6) == "12,346"
    assert text.number(None, missing="unknown") == "unknown"
    assert text.number(0.000123, ".2g") == "0.00012"
    assert text.number(0.256, ".1%") == "25.6%"


def test_table_puts_numbers_to_the_right():
    rows = [["name", "score", "note"], ["a", "1.5", "-"], ["longer", "-", " x"], ["b", "22", ""]]
    assert text.table(rows).splitlines() == [
        "name    score  note",
        "a         1.5  -",
        "longer      -   x",
        "b          22",
    ]
    assert text.table([["only", "heading"]]) == "only  heading"
