import dataclasses
import math

import pytest

from tlc_jax.statistics.curves import APPROX_BLEU, Curve, reaching, values_at
from tlc_jax.statistics.kinds import ENCODER, TRANSLATOR, Size
from tlc_jax.statistics.regime import regime, regimes
from tlc_jax.study.rows import load

SMALL, LARGE = Size(600_000, 2, 64), Size(5_400_000, 4, 256)
SECONDS = tuple(float(2**power) for power in range(7))


def _curve(size, losses, seed=0, vocab=1024, **result):
    steps = tuple(int(10 * second) for second in SECONDS)
    return Curve(
        size, seed, f"pretrain-{size}-p{seed}", steps, SECONDS, tuple(losses), result, vocab
    )


def test_crossing_is_found_where_the_curves_meet():
    # In log2 seconds the small model falls by 0.1 a doubling from 3.0 and the large one by 0.3
    # from 3.7: they meet at 3.5 doublings.
    small = _curve(SMALL, [3.0 - 0.1 * k for k in range(7)])
    large = _curve(LARGE, [3.7 - 0.3 * k for k in range(7)])
    found = regime([large, small])
    (crossing,) = found.seconds
    assert (crossing.outcome, crossing.shown) == (1, False)
    assert 8.0 < crossing.at < 16.0
    assert f"4x256 overtakes 2x64 at {crossing.at:.3g} s" in crossing.describe("s")
    assert found.leader == LARGE
    assert "Large-model regime" in found.headline()
    assert "One run per size can suggest this but cannot show it." in found.headline()
    assert "suggested at most" in crossing.describe("s")


def test_two_runs_of_each_size_show_it():
    small = [_curve(SMALL, [3.0 + luck] * 7, seed) for seed, luck in enumerate((0.0, 0.01))]
    large = [_curve(LARGE, [2.5 + luck] * 7, seed) for seed, luck in enumerate((0.0, 0.01))]
    found = regime([*small, *large])
    (crossing,) = found.seconds
    assert (crossing.outcome, crossing.shown) == (1, True)
    assert crossing.lead.estimate == pytest.approx(0.5)
    assert "+0.470 to +0.530, 2 runs per size" in crossing.describe("s")
    assert "One run" not in found.headline()


def test_the_intervals_of_more_pairs_are_wider():
    sizes = [SMALL, Size(1_700_000, 3, 128), LARGE]
    curves = [_curve(size, [3.0 + seed / 100] * 7, seed) for size in sizes for seed in range(2)]
    pairs = regime(curves).seconds
    assert [pair.level for pair in pairs] == pytest.approx([1 - 0.05 / 3] * 3)


def test_no_crossing_is_never_claimed():
    small = _curve(SMALL, [3.0 - 0.1 * k for k in range(7)])
    large = _curve(LARGE, [4.0 - 0.2 * k for k in range(7)])
    found = regime([small, large])
    (crossing,) = found.seconds
    assert (crossing.outcome, crossing.at, crossing.narrowing) == (-1, None, True)
    assert crossing.lead.estimate < 0
    assert "has not overtaken" in crossing.describe("s")
    assert "Small-model regime" in found.headline()
    assert "overtakes" not in found.headline()


def test_a_large_model_that_led_from_the_start_did_not_cross():
    found = regime([_curve(SMALL, [3.0] * 7), _curve(LARGE, [2.9 - 0.1 * k for k in range(7)])])
    assert found.seconds[0].at is None
    assert "leads 2x64 from the first evaluation on" in found.seconds[0].describe("s")


def test_a_lead_within_the_spread_of_seeds_is_level():
    small = [_curve(SMALL, [3.0] * 6 + [end], seed) for seed, end in enumerate((2.9, 3.1))]
    large = [_curve(LARGE, [3.1] * 6 + [end], seed) for seed, end in enumerate((2.8, 3.1))]
    found = regime([*small, *large])
    assert found.seconds[0].outcome == 0
    assert found.headline().startswith("Undecided regime: 4x256 has the lowest mean loss")


def test_a_leader_within_the_spread_of_seeds_makes_no_large_model_regime():
    middle = Size(1_700_000, 3, 128)
    ends = {SMALL: (2.0, 2.2), middle: (3.0, 3.2), LARGE: (1.95, 2.15)}
    curves = [_curve(s, [3.5] * 6 + [e], n) for s, some in ends.items() for n, e in enumerate(some)]
    headline = regime(curves).headline()
    assert headline.startswith("Mixed regime: 4x256 leads, not surely ahead of 2x64,")
    assert "ahead of a smaller one in 1 of 3 pairs" in headline


@pytest.mark.parametrize(
    ("loss", "unigram", "vocab", "plateau"),
    [
        (4.5, 5.0, 0, True),
        (3.5, 5.0, 0, False),
        (5.0, None, 1024, True),
        (3.0, None, 1024, False),
        (3.0, None, 0, None),
    ],
)
def test_plateau(loss, unigram, vocab, plateau):
    result = {} if unigram is None else {"unigram_loss": unigram}
    curve = _curve(SMALL, [6.0] * 6 + [loss], vocab=vocab, **result)
    assert regime([curve]).progress[0].plateau is plateau


def test_headline_names_sizes_on_the_plateau_and_sizes_that_still_learn():
    flat = _curve(SMALL, [2.0] * 7)
    falling = _curve(LARGE, [6.5 - 0.1 * k for k in range(7)])
    headline = regime([flat, falling]).headline()
    assert "early plateau of masked-language training: 4x256" in headline
    assert "still falling for 4x256. One run" in headline


def test_no_curves():
    found = regime([])
    assert found.leader is None and found.seconds == ()
    assert "nothing can be said" in found.headline()


def test_interpolation_is_linear_in_the_logarithm():
    curve = _curve(SMALL, [7.0 - k for k in range(7)])
    assert values_at([curve], "seconds", math.sqrt(2) * 4) == pytest.approx([4.5])
    assert values_at([curve], "seconds", 1000.0) == [1.0]


def test_reaching_a_loss():
    curve = _curve(SMALL, [7.0 - k for k in range(7)])
    assert reaching([curve], "seconds", 4.5) == pytest.approx(6.0)
    assert reaching([curve], "steps", 7.0) == 10.0
    assert reaching([curve, dataclasses.replace(curve, losses=(7.0,) * 7)], "seconds", 4.5) is None


def test_a_quantity_that_rises_is_read_the_same_way():
    curve = dataclasses.replace(
        _curve(SMALL, [6.0] * 7), approx_bleus=tuple(0.1 * k for k in range(7))
    )
    assert values_at([curve], "seconds", math.sqrt(2) * 4, APPROX_BLEU) == pytest.approx([0.25])
    assert reaching([curve], "seconds", 0.25, APPROX_BLEU) == pytest.approx(6.0)
    assert reaching([curve], "seconds", 0.7, APPROX_BLEU) is None


def test_translators_have_no_plateau_of_masked_language_training():
    sizes = (dataclasses.replace(size, kind=TRANSLATOR) for size in (SMALL, LARGE))
    found = regime([_curve(size, [6.9] * 7, unigram_loss=5.0) for size in sizes])
    assert [progress.plateau for progress in found.progress] == [None, None]
    assert "plateau" not in found.headline() and "masked" not in found.headline()


def test_each_kind_has_a_regime_of_its_own(study_maker, tmp_path):
    study = load(study_maker(tmp_path, kinds=("encoder", "translator")))
    found = regimes(study)
    assert {kind: str(regime.leader) for kind, regime in found.items()} == {
        ENCODER: "4x256",
        TRANSLATOR: "2x128",
    }
    assert all(len(regime.seconds) == 3 for regime in found.values())
