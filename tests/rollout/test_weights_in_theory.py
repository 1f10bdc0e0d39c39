"""The paper's appendix A on an action space so small that every expectation is a sum."""

import itertools
import math

import numpy as np
import pytest

from ekipl_rollout.answer import POLICY
from ekipl_rollout.settings import WeightSettings
from ekipl_rollout.weigh.diagnostics import bias_bound, effective_sample_size, quantile
from ekipl_rollout.weigh.modes import mixture, per_source
from ekipl_rollout.weigh.row import WeighedRow

SETTINGS = WeightSettings()
ALPHAS = {POLICY: 1 / 3, "a": 1 / 3, "b": 1 / 3}


class World:
    """`size` answers; a policy and two experts that give them with random probabilities, and a function g of them."""

    def __init__(self, seed: int, size: int = 12):
        rng = np.random.default_rng(seed)
        self.old, self.a, self.b = rng.dirichlet(np.full(size, 0.7), 3)
        self.g = rng.normal(size=size)
        self.q = (self.old + self.a + self.b) / 3
        self.truth = float(self.old @ self.g)

    def weights(self) -> np.ndarray:
        """Ours, of each answer under the mixture."""
        rows = [
            WeighedRow("a", math.log(p), 1, math.log(a), {"a": math.log(a), "b": math.log(b)})
            for p, a, b in zip(self.old, self.a, self.b, strict=True)
        ]
        return np.array(mixture(rows, ALPHAS, SETTINGS))


@pytest.mark.parametrize("seed", range(5))
def test_importance_sampling_from_the_mixture_is_unbiased(seed):
    world = World(seed)
    assert world.q @ (world.weights() * world.g) == pytest.approx(world.truth, abs=1e-12)


def test_a_sampled_estimate_lies_within_its_standard_error():
    world, rng = World(1), np.random.default_rng(0)
    weighted = (world.weights() * world.g)[rng.choice(12, p=world.q, size=200_000)]
    standard_error = weighted.std() / math.sqrt(len(weighted))
    assert abs(weighted.mean() - world.truth) < 4 * standard_error


def test_one_expert_alone_is_unbiased_too_where_it_reaches_every_answer():
    world = World(2)
    rows = [WeighedRow("a", math.log(p), 1, math.log(a)) for p, a in zip(world.old, world.a, strict=True)]
    assert world.a @ (np.array(per_source(rows, ALPHAS, SETTINGS)) * world.g) == pytest.approx(world.truth, abs=1e-12)


def expected_snis(world: World, n: int) -> float:
    """E of the self-normalised estimate, over every multiset of n answers."""
    weights, total = world.weights(), 0.0
    for counts in itertools.product(range(n + 1), repeat=3):
        if sum(counts) == n:
            drawn = np.array(counts)
            ways = math.factorial(n) / math.prod(math.factorial(c) for c in counts)
            estimate = (drawn * weights) @ world.g / (drawn @ weights)
            total += ways * float(np.prod(world.q**drawn)) * float(estimate)
    return total


def test_the_bias_of_self_normalised_weights_falls_with_the_number_of_samples():
    world = World(4, size=3)
    bias = {n: abs(expected_snis(world, n) - world.truth) for n in (8, 16, 32, 64)}
    assert bias[8] > 1e-4
    for n in (8, 16, 32):
        assert bias[2 * n] / bias[n] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("seed", range(20))
def test_mixture_weights_never_exceed_the_number_of_sources(seed):
    weights = World(seed).weights()
    assert weights.min() >= 0 and weights.max() <= 3.0


@pytest.mark.parametrize(
    ("weights", "size"), [([1, 1, 1, 1], 4.0), ([1, 0, 0, 0], 1.0), ([2, 2, 0, 0], 2.0), ([3, 1], 16 / 10)]
)
def test_effective_sample_size_lies_between_one_and_all(weights, size):
    logs = [math.log(w) if w else -math.inf for w in weights]
    assert effective_sample_size(logs) == pytest.approx(size)
    assert effective_sample_size([log - 900.0 for log in logs]) == pytest.approx(size)


@pytest.mark.parametrize("seed", range(20))
def test_ignoring_the_correction_costs_at_most_what_equation_10_says(seed):
    world = World(seed)
    distance = np.abs(world.old - world.q).sum() / 2
    error = abs(world.truth - world.q @ world.g)
    assert error <= 2 * np.abs(world.g).max() * distance
    drawn = np.random.default_rng(seed).choice(12, p=world.q, size=50_000)
    estimated = bias_bound(list(np.log(world.weights())[drawn]), list(world.g))
    assert estimated == pytest.approx(2 * np.abs(world.g).max() * distance, rel=0.05)


def test_exact_weights_take_out_what_experts_bring_at_any_length_worth_training_on():
    """No defect: 0.3 nats a token between policy and expert (normal, deviation 0.5) over 150 tokens are a weight of e^-45. Of
    eight kept answers, four of them an expert's, four count."""
    gaps = np.random.default_rng(0).normal(-0.3, 0.5, size=(200, 4, 150)).sum(axis=-1)
    assert np.exp(gaps).max() < 1e-4
    sizes = [effective_sample_size([0.0] * 4 + list(group)) for group in gaps]
    assert sizes == pytest.approx([4.0] * 200, abs=1e-3)
    experts_alone = [effective_sample_size(list(group)) for group in gaps]
    assert 1.0 <= np.mean(experts_alone) < 1.5


def expected_kept_accuracy(accuracies: list[float], each: int, kept: int) -> float:
    """E of the share of right answers among the best `kept` of `each` answers of every source, rewards 0 or 1."""
    right = np.array([1.0])
    for accuracy in accuracies:
        for _ in range(each):
            right = np.convolve(right, [1 - accuracy, accuracy])
    return float(right @ np.minimum(np.arange(len(right)), kept)) / kept


def test_selection_is_biased_and_no_weight_of_a_kept_answer_takes_that_back():
    """N = G = 8, policy right .24, experts .42 and .26: the best 8 of 24 are right .85 of the time. Weights pi_old / q do
    not undo it: they are a property of an answer, and what was dropped is not there to be weighed. Even experts that are
    the policy itself, so that every weight is 1, leave the kept ones right .70 of the time instead of .24."""
    assert expected_kept_accuracy([0.24, 0.42, 0.26], 8, 8) == pytest.approx(0.845, abs=0.001)
    assert expected_kept_accuracy([0.24] * 3, 8, 8) == pytest.approx(0.700, abs=0.001)
    assert expected_kept_accuracy([0.24], 8, 8) == pytest.approx(0.24)


def test_quantiles_are_numpys():
    values = list(np.random.default_rng(0).normal(size=37))
    for share in (0.0, 0.05, 0.5, 0.95, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))
