"""The numbers of an evaluation against closed forms and against simulation."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from recipe.ekipl.measure.statistics import (
    EXACT_UP_TO,
    compare,
    crossed_draws,
    estimate,
    estimate_average,
    estimate_columns,
    estimate_pass_at_k,
    pass_at_k,
    percentiles,
    sign_flip_p,
)


def exact_pass_at_k(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(comb(n - c, k), comb(n, k))


@pytest.mark.parametrize("n", [1, 2, 5, 8, 64, 200])
def test_pass_at_k_is_the_exact_rational_for_every_count_and_every_k(n):
    values = pass_at_k(n, np.arange(n + 1), range(1, n + 1))
    for c in range(n + 1):
        for k in range(1, n + 1):
            exact = exact_pass_at_k(n, c, k)
            assert values[c, k - 1] == pytest.approx(float(exact), abs=1e-13)


def test_pass_at_k_does_not_overflow_for_many_samples():
    n = 100_000  # C(n, n/2) has thirty thousand digits
    for c in (1, 3, 50_000):
        value = pass_at_k(n, c, [1, 64, 50_000])[0]
        assert value[0] == pytest.approx(c / n, rel=1e-10)
        assert value[2] == pytest.approx(float(exact_pass_at_k(n, c, 50_000)), abs=1e-10)


def test_pass_at_k_is_unbiased():
    """Averaged over all ways to draw n samples of a problem solved with probability p, it is 1 - (1-p)^k."""
    n, p = 12, 0.3
    chances = np.array([comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)])
    for k in (1, 4, 12):
        assert chances @ pass_at_k(n, np.arange(n + 1), [k])[:, 0] == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_pass_at_k_refuses_more_than_was_sampled():
    with pytest.raises(ValueError, match="n=8"):
        pass_at_k(8, [3], [1, 16])
    with pytest.raises(ValueError, match="0 ... n=8"):
        pass_at_k(8, [9], [1])


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    """400 experiments of 100 rows with partial credit: 95 % intervals must cover in 95 % of them, give or take 3 s.e."""
    rng = np.random.default_rng(0)
    truth, covered = 0.5 * 0.3 + 0.4, 0
    for trial in range(400):
        scores = rng.choice([0.0, 0.5, 1.0], size=100, p=[0.3, 0.3, 0.4])
        found = estimate(scores, seed=trial, resamples=600)
        covered += found.low <= truth <= found.high
    assert 0.917 <= covered / 400 <= 0.983


def test_the_spread_of_the_bootstrap_is_the_standard_error():
    scores = np.repeat([0.0, 1.0], [140, 60])
    draws = crossed_draws(scores[None, :], seed=1)[0]
    assert draws.mean() == pytest.approx(0.3, abs=0.002)
    assert draws.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 200), rel=0.03)


def test_two_runs_that_differ_widen_the_interval():
    rows = np.random.default_rng(0).random(300) < 0.5
    alike, apart = np.stack([rows, rows]), np.stack([rows, np.ones(300)])
    widths = [high - low for low, high in (percentiles(crossed_draws(s.astype(float))[0]) for s in (alike, apart))]
    assert widths[0] < 0.12
    assert widths[1] > 0.4


def test_runs_of_pure_seed_noise_have_the_spread_of_their_means():
    scores = np.repeat([[0.2], [0.4], [0.9]], 50, axis=1)  # every row of a run alike
    assert crossed_draws(scores, seed=2)[0].std() == pytest.approx(np.std([0.2, 0.4, 0.9]) / np.sqrt(3), rel=0.03)


def test_nothing_but_right_answers_is_no_certainty():
    found = estimate(np.ones(250))
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 250))
    assert estimate(np.zeros(250)).high == pytest.approx(1 - 0.025 ** (1 / 250))


def test_an_empty_split_has_no_mean():
    with pytest.raises(ValueError, match="no scores"):
        estimate(np.zeros((1, 0)))


def test_columns_get_the_interval_they_would_get_alone():
    values = np.random.default_rng(5).random((80, 3))
    for column, found in zip(values.T, estimate_columns(values, seed=7, resamples=500), strict=True):
        alone = estimate(column, seed=7, resamples=500)
        assert found.mean == pytest.approx(alone.mean)
        assert found.low == pytest.approx(alone.low, abs=0.02)


def test_the_interval_of_pass_at_k_never_claims_more_for_a_smaller_k():
    right = np.array([64] * 30 + [60, 50])  # every row solved at k = 64
    curve = estimate_pass_at_k(64, right, range(1, 65))
    assert curve[-1].mean == 1.0
    assert curve[-1].low == pytest.approx(0.025 ** (1 / 32))
    assert all(a.low <= b.low and a.mean <= b.mean for a, b in zip(curve, curve[1:], strict=False))


def test_the_p_value_of_right_and_wrong_answers_is_the_exact_sign_test():
    """With differences of +1 and -1 the sign-flip test is McNemar's exact test: a binomial."""
    better, worse = 9, 3
    d = np.array([1.0] * better + [-1.0] * worse + [0.0] * 50)
    tail = sum(comb(12, i) for i in range(better, 13)) / 2**12
    assert sign_flip_p(d) == pytest.approx(2 * tail)


def test_the_drawn_p_value_agrees_with_the_enumerated_one(monkeypatch):
    d = np.random.default_rng(3).normal(0.4, 1.0, EXACT_UP_TO)
    exact = sign_flip_p(d)
    monkeypatch.setattr("recipe.ekipl.measure.statistics.EXACT_UP_TO", 0)
    assert sign_flip_p(d, resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_p_values_are_uniform_when_there_is_no_difference():
    rng = np.random.default_rng(4)
    p = np.sort([sign_flip_p(rng.normal(size=30), seed=i, resamples=400) for i in range(500)])
    uniform = (np.arange(500) + 0.5) / 500
    assert np.abs(p - uniform).max() < 1.63 / np.sqrt(500)  # Kolmogorov-Smirnov at 1 %


def test_equal_runs_do_not_differ():
    scores = np.random.default_rng(0).random(40)
    found = compare(scores, scores)
    assert (found.difference, found.low, found.high, found.p, found.better) == (0.0, 0.0, 0.0, 1.0, 0)


def test_a_comparison_is_paired():
    """Rows of very different difficulty, one run a little better on each: unpaired intervals overlap, the pairs do not."""
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    found = compare(hard * 0.95 + 0.03 * rng.random(200) + 0.02, hard * 0.95)
    assert found.low > 0.03
    assert found.high < 0.04
    assert found.p < 0.001
    assert found.better == 200
    other = compare(hard * 0.95, hard * 0.95 + 0.03)
    assert other.difference == pytest.approx(-0.03)


def test_runs_that_are_paired_are_drawn_together():
    """Every row of a run alike. Bases of .2 and .8, and one method that is .1 better on both: the pairs leave no doubt."""
    base = np.repeat([[0.2], [0.8]], 50, axis=1)
    found = compare(base + 0.1, base, by_run=True)
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.runs == 2
    loose = compare(base + 0.1, base)
    assert loose.difference == pytest.approx(0.1)
    assert (loose.low, loose.high) == pytest.approx((0.1 - 0.6, 0.1 + 0.6))  # both of one side, and of the other


def test_pairs_of_runs_have_the_spread_of_their_differences():
    """Two pairs that differ by 0 and by 1 are drawn 0, .5 and 1 with a quarter, a half and a quarter."""
    first = np.repeat([[0.3], [1.0]], 50, axis=1)
    second = np.repeat([[0.3], [0.0]], 50, axis=1)
    found = compare(first, second, by_run=True)
    assert (found.difference, found.low, found.high) == pytest.approx((0.5, 0.0, 1.0))
    with pytest.raises(ValueError, match="equally many: 2 and 1"):
        compare(first, second[:1], by_run=True)


def test_a_comparison_needs_the_same_rows():
    with pytest.raises(ValueError, match="same rows: 3 and 4"):
        compare(np.zeros(3), np.zeros(4))


def test_an_average_of_splits_without_any_spread_does_not_claim_certainty():
    none, full = np.zeros((2, 30)), np.ones((2, 30))
    found = estimate_average([none, none])
    assert (found.mean, found.low) == (0.0, 0.0)
    assert 0.05 < found.high < 0.2
    found = estimate_average([none, full])
    assert found.low < found.mean == 0.5 < found.high
