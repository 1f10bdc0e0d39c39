"""Intervals, tests and pass@k. Arrays in, numbers out: numpy only, and every random draw has a seed.

Letters: S training seeds (runs of one method), R rows of a split, n samples a row, B resamples, K sizes k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
EXACT_UP_TO = 16  # rows that differ; 2^16 sign patterns are enumerated, beyond that they are drawn
CHUNK = 4_000_000  # random numbers held at once: bounds memory, whatever R and B are


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval at LEVEL."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """First minus second, on the same rows."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided, from the sign-flip permutation test."""

    rows: int
    better: int
    worse: int
    """Rows on which the first scores higher, and lower; they agree on the rest."""

    runs: int = 1
    """Runs (training seeds) behind it: pairs, or of the side that has fewer."""


def pass_at_k(num_samples: int, num_right: np.ndarray | int, sizes: Sequence[int]) -> np.ndarray:
    """Unbiased pass@k: 1 - C(n-c, k) / C(n, k) for c right of n (Chen et al. 2021, arXiv:2107.03374, Eq. 1).

    `num_right`: [R] counts; `sizes`: K values of k, each 1 ... n. Returns [R, K]. The quotient is a product of n-c ratios
    below 1, so nothing overflows for any n.

    Example: n=4, c=1 -> pass@1 = 0.25, pass@2 = 0.5, pass@4 = 1.
    """
    right = np.atleast_1d(np.asarray(num_right, dtype=np.int64))
    k = np.asarray(sizes, dtype=np.int64)
    if k.size and not (k.min() >= 1 and k.max() <= num_samples):
        raise ValueError(f"pass@k needs 1 <= k <= n; n={num_samples} samples, k={list(sizes)}")
    if right.size and not (right.min() >= 0 and right.max() <= num_samples):
        raise ValueError(f"counts of right samples must lie in 0 ... n={num_samples}")
    # C(n-c, k) / C(n, k) as a product over i = 0 ... k-1 of (n-c-i) / (n-i): one running product serves every k
    i = np.arange(int(k.max(initial=0)))
    ratios = np.maximum(num_samples - right[:, None] - i, 0) / (num_samples - i)
    missed = np.cumprod(ratios, axis=1)
    return 1.0 - missed[:, k - 1]


def crossed_draws(*sides: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """[len(sides), B] resampled means of each of `sides`, scores [S, R] over the same R rows.

    Runs and rows are both drawn anew (Owen 2007, "The pigeonhole bootstrap"); the rows together for all sides, the runs
    of each side by themselves. With S=1 it is the ordinary bootstrap over rows. Three runs say little about runs: their
    part of the variance comes out a third too small.
    """
    rows, rng = sides[0].shape[1], np.random.default_rng(seed)
    parts = []
    for size in _chunks(rows, resamples):
        by_row = _weights(rng, rows, size)
        parts.append([np.einsum("bs,sr,br->b", _weights(rng, len(s), size), s, by_row, optimize=True) for s in sides])
    return np.concatenate(parts, axis=1)


def column_draws(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """[B, K] resampled means of the columns of `values` [R, K]; all columns share the rows that were drawn."""
    rows, rng = values.shape[0], np.random.default_rng(seed)
    return np.concatenate([_weights(rng, rows, size) @ values for size in _chunks(rows, resamples)])


def _weights(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """[size, count]: how often each of `count` things is drawn in `count` draws, as a share."""
    return rng.multinomial(count, np.full(count, 1.0 / count), size=size) / count


def _chunks(rows: int, resamples: int) -> list[int]:
    step = max(1, CHUNK // rows)
    return [min(step, resamples - at) for at in range(0, resamples, step)]


def percentiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval at LEVEL of resampled means, along the first axis."""
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    return low, high


def estimate(scores: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean of `scores` [R] or [S, R], each in [0, 1], with a percentile bootstrap interval.

    When every score is 0 (or every one is 1) a bootstrap has no width, which would claim certainty; then the end away
    from the mean is the exact binomial bound (Clopper-Pearson): with 250 rows all right, [0.985, 1].
    """
    scores = np.atleast_2d(np.asarray(scores, dtype=float))
    if scores.size == 0:
        raise ValueError("no scores: an empty split has no mean")
    low, high = percentiles(crossed_draws(scores, seed=seed, resamples=resamples)[0])
    mean = float(scores.mean())
    return Estimate(mean, *_widened(float(low), float(high), scores))


def estimate_columns(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[Estimate]:
    """An Estimate for each column of `values` [R, K]; all columns share the resampled rows."""
    values = np.asarray(values, dtype=float)
    low, high = percentiles(column_draws(values, seed, resamples))
    ends = (_widened(lo, hi, c) for lo, hi, c in zip(low, high, values.T, strict=True))
    return [Estimate(float(m), *end) for m, end in zip(values.mean(0), ends, strict=True)]


def estimate_pass_at_k(num_samples: int, num_right: np.ndarray, sizes: Sequence[int]) -> list[Estimate]:
    """pass@k over rows with an interval for each of `sizes` (rising); `num_right` [R].

    pass@k never falls with k, so no lower end may lie above a later one: where all rows are solved at some k, the exact
    bound there holds for the smaller k as well.
    """
    found = estimate_columns(pass_at_k(num_samples, num_right, sizes), resamples=2_000)
    lows = np.minimum.accumulate([point.low for point in found][::-1])[::-1]
    return [Estimate(point.mean, float(low), point.high) for point, low in zip(found, lows, strict=True)]


def estimate_average(splits: Sequence[np.ndarray], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The plain average of several splits' means, each [S, R_j] of the same S runs: an AVG cell of Table 1.

    Runs are drawn once for all splits, rows in each split by themselves. Where no split has any spread the ends are the mean
    of the splits' exact bounds (`estimate`), wider than they need be.
    """
    rng, count = np.random.default_rng(seed), len(splits)
    by_run = _weights(rng, len(splits[0]), resamples)
    draws = np.zeros(resamples)
    for scores in splits:
        at = 0
        for size in _chunks(scores.shape[1], resamples):
            by_row = _weights(rng, scores.shape[1], size)
            drawn = np.einsum("bs,sr,br->b", by_run[at : at + size], scores, by_row, optimize=True)
            draws[at : at + size] += drawn / count
            at += size
    mean = float(np.mean([scores.mean() for scores in splits]))
    low, high = percentiles(draws)
    if all(np.ptp(scores) == 0 for scores in splits):  # no width would claim certainty
        low, high = np.mean([_widened(mean, mean, scores) for scores in splits], axis=0)
    return Estimate(mean, float(low), float(high))


def _widened(low: float, high: float, scores: np.ndarray) -> tuple[float, float]:
    """`low` and `high`, or the exact bounds where all scores are 0 or all are 1: no width would claim certainty."""
    rows, tail = scores.shape[-1], (1.0 - LEVEL) / 2.0
    if np.all(scores == 1.0):
        return tail ** (1.0 / rows), 1.0
    if np.all(scores == 0.0):
        return 0.0, 1.0 - tail ** (1.0 / rows)
    return float(low), float(high)


def compare(
    first: np.ndarray, second: np.ndarray, seed: int = 0, resamples: int = RESAMPLES, by_run: bool = False
) -> Comparison:
    """Paired comparison of two runs: scores [R] of each, or [S, R] of several runs of each, rows in the same order.

    The interval resamples rows together for both sides, and runs within each side; with `by_run` the s-th runs of both are a
    pair (one training seed, hence one base model) and are drawn together. The p-value is that of the sign-flip permutation
    test on the rows' differences (runs averaged): under "no difference" each sign is as likely as the other. It speaks about
    these runs, and not about other training seeds.
    """
    a, b = (np.atleast_2d(np.asarray(side, dtype=float)) for side in (first, second))
    if a.shape[1] != b.shape[1] or a.shape[1] == 0:
        raise ValueError(f"a paired comparison needs the same rows: {a.shape[1]} and {b.shape[1]}")
    if by_run and len(a) != len(b):
        raise ValueError(f"runs that are paired must be equally many: {len(a)} and {len(b)}")
    by_row = a.mean(0) - b.mean(0)
    if by_run:
        draws = crossed_draws(a - b, seed=seed, resamples=resamples)[0]
    else:
        one, other = crossed_draws(a, b, seed=seed, resamples=resamples)
        draws = one - other
    low, high = percentiles(draws)
    return Comparison(
        difference=float(by_row.mean()),
        low=float(low),
        high=float(high),
        p=sign_flip_p(by_row, seed, resamples),
        rows=by_row.size,
        better=int((by_row > 0).sum()),
        worse=int((by_row < 0).sum()),
        runs=min(len(a), len(b)),
    )


def sign_flip_p(differences: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of the sign-flip permutation test of mean 0.

    Exact while at most EXACT_UP_TO rows differ; drawn otherwise, as (1 + hits) / (1 + B), which is never 0 and never too
    small on average (Phipson and Smyth 2010).
    """
    d = np.asarray(differences, dtype=float)
    d = d[d != 0.0]  # a row that agrees adds 0 whatever its sign
    if d.size == 0:
        return 1.0
    seen = abs(d.sum()) - 1e-9 * np.abs(d).sum()  # sums of one set in another order differ in the last bit
    if d.size <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1)
        return float((np.abs(signs @ d) >= seen).mean())
    rng, hits = np.random.default_rng(seed), 0
    for size in _chunks(d.size, resamples):
        flips = rng.integers(0, 2, size=(size, d.size), dtype=np.int8)
        hits += int((np.abs((1 - 2 * flips) @ d) >= seen).sum())
    return (1 + hits) / (1 + resamples)
