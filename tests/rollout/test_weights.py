"""Weights by what they must do, and by the ways in which they are known to go wrong."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ekipl_rollout.answer import POLICY, Answer, AnswerStatus
from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import EkiplSettings, WeightSettings
from ekipl_rollout.settings.weights import NEEDS_ALL, NEEDS_NOTHING, NEEDS_OWN
from ekipl_rollout.weigh.batch import BatchRow, weigh
from ekipl_rollout.weigh.modes import MODES, log_sum_exp, luffy_factor
from ekipl_rollout.weigh.row import WeighedRow, shares

ALPHAS = {POLICY: 1 / 3, "gpt": 1 / 3, "gemini": 1 / 3}
DEFAULTS = WeightSettings()


def policy(log_old=-20.0, tokens=30, **under):
    return WeighedRow(POLICY, log_old, tokens, None, under)


def expert(log_old, log_own, source="gpt", tokens=30, **under):
    return WeighedRow(source, log_old, tokens, log_own, under)


def weights(mode, *rows, alphas=ALPHAS, **settings):
    return MODES[mode](rows, alphas, WeightSettings(mode=mode, **settings))


@pytest.mark.parametrize("mode", ["per_source", "snis", "clip", "geo"])
def test_an_expert_that_is_the_policy_changes_nothing(mode):
    assert weights(mode, policy(), expert(-9.0, -9.0)) == pytest.approx([1.0, 1.0])


def test_exact_weights_are_the_ratio_of_whole_sequences():
    assert weights("per_source", policy(), expert(-5.0, -3.0)) == pytest.approx([1.0, math.exp(-2.0)])


def test_self_normalised_weights_have_mean_one_however_small_they_are():
    rows = [expert(-900.0 - i, -100.0) for i in range(8)]
    result = weights("snis", *rows)
    assert sum(result) == pytest.approx(8.0)
    assert result[0] / result[1] == pytest.approx(math.e)


def test_a_long_answer_does_not_underflow_before_it_is_compared():
    assert math.exp(-800.0) == 0.0
    assert weights("snis", expert(-800.0, -100.0), expert(-800.0, -100.0)) == pytest.approx([1.0, 1.0])


def test_experts_are_not_made_alike_by_a_clamp():
    """verl's rollout correction clamps sums at +-20, after which all expert rows would weigh the same."""
    first, second = weights("snis", expert(-300.0, -100.0), expert(-310.0, -100.0))
    assert first / second == pytest.approx(math.exp(10))


def test_a_weight_that_would_be_infinite_stays_finite():
    assert all(math.isfinite(w) for w in weights("per_source", expert(0.0, -5000.0)))


@pytest.mark.parametrize("log_gap", [-2000.0, -5.0, 0.0, 5.0, 2000.0])
def test_mixture_weights_are_bounded_by_one_over_the_policys_share(log_gap):
    row = expert(-500.0 + log_gap, -500.0, gpt=-500.0, gemini=-700.0)
    own = policy(-500.0 + log_gap, gpt=-500.0, gemini=-700.0)
    for mode in ("mixture", "mixture_own"):
        assert all(0.0 <= w <= 3.0 + 1e-9 for w in weights(mode, row, own))


def test_the_mixture_counts_every_source():
    row = expert(math.log(0.2), math.log(0.5), gpt=math.log(0.5), gemini=math.log(0.3))
    assert weights("mixture", row) == pytest.approx([0.2 / ((0.2 + 0.5 + 0.3) / 3)])


def test_the_computable_mixture_is_an_over_estimate_and_says_so_of_policy_rows():
    row = expert(math.log(0.2), math.log(0.5), gpt=math.log(0.5), gemini=math.log(0.3))
    own, exact = weights("mixture_own", row)[0], weights("mixture", row)[0]
    assert own == pytest.approx(0.2 / ((0.2 + 0.5) / 3))
    assert own > exact
    assert weights("mixture_own", policy()) == pytest.approx([3.0])


def test_shares_are_of_the_answers_that_really_came():
    assert shares([POLICY] * 8 + ["gpt"] * 2) == {POLICY: 0.8, "gpt": 0.2}


def test_clipping_bounds_a_sequence_and_leaves_the_rest():
    assert weights("clip", expert(-1.0, -9.0), expert(-9.0, -8.0), clip=2.0) == pytest.approx([2.0, math.exp(-1)])


def test_the_weight_per_token_does_not_degenerate_with_length():
    short, long = expert(-3.1, -3.0, tokens=1), expert(-310.0, -300.0, tokens=100)
    assert weights("geo", short, long) == pytest.approx([math.exp(-0.1)] * 2)
    assert weights("geo", expert(-900.0, -1.0), geo_delta=0.2) == pytest.approx([0.8])


def test_tokens_of_two_tokenizers_are_never_compared_one_by_one():
    """The expert's three tokens and its one token of the same sum weigh alike; T is the policy's in both."""
    three, one = (Answer("gpt", 0, "x", AnswerStatus.FINISHED, logprobs=logs) for logs in ([-1.0, -0.5, -2.0], [-3.5]))
    rows = [expert(-5.0, answer.log_probability, tokens=10) for answer in (three, one)]
    for mode, each in {"per_source": math.exp(-1.5), "geo": math.exp(-0.15), "snis": 1.0}.items():
        assert weights(mode, *rows) == pytest.approx([each] * 2)


def test_luffys_factor_is_the_derivative_of_its_shaping():
    gamma, step = 0.1, 1e-6
    for log_p in (-8.0, -2.3, -0.1):
        p = math.exp(log_p)
        shaped = [x / (x + gamma) for x in (p - step * p, p + step * p)]
        by_log_p = (shaped[1] - shaped[0]) / (2 * step)
        assert luffy_factor(p, gamma) == pytest.approx(by_log_p, rel=1e-5)


def test_log_sum_exp_of_nothing_is_nothing():
    assert log_sum_exp([]) == -math.inf
    assert log_sum_exp([-1e9, -1e9]) == pytest.approx(-1e9 + math.log(2))


@pytest.mark.parametrize("mode", [*NEEDS_OWN, *NEEDS_ALL])
def test_an_answer_without_log_probabilities_is_not_given_a_weight(mode):
    with pytest.raises(ValueError, match="gpt"):
        weights(mode, WeighedRow("gpt", -5.0, 9, None, {}))


GROUPS = {"a": {"shares": ALPHAS}, "b": {"shares": ALPHAS}}
BATCH = [
    BatchRow(3, "a", expert(-5.0, -3.0), 0.5),
    BatchRow(0, "b", policy(), -1.0),
    BatchRow(2, "b", expert(-4.0, -3.0, "gemini"), 2.0),
    BatchRow(5, "a", policy(), 1.0),
]


def test_groups_are_found_by_uid_in_whatever_order_their_rows_come():
    result, _ = weigh(BATCH, GROUPS, WeightSettings(mode="snis"), ["gpt", "gemini"])
    again, _ = weigh(BATCH[::-1], GROUPS, WeightSettings(mode="snis"), ["gpt", "gemini"])
    assert result == pytest.approx(again)
    assert result[3] + result[5] == pytest.approx(2.0) == result[0] + result[2]


def test_padding_rows_and_modes_without_row_weights_have_none():
    result, _ = weigh(BATCH, GROUPS, WeightSettings(mode="per_source"))
    assert set(result) == {0, 2, 3, 5}
    assert [weigh(BATCH, GROUPS, WeightSettings(mode=mode))[0] for mode in ("none", "luffy")] == [{}, {}]


def test_metrics_say_what_a_correction_would_do_before_it_is_switched_on():
    _, metrics = weigh(BATCH, GROUPS, DEFAULTS, ["gpt", "gemini"])
    assert metrics["ekipl/weights/expert1/log_p95"] == pytest.approx(-2.0)
    assert metrics["ekipl/weights/expert2/log_p50"] == pytest.approx(-1.0)
    sizes = [(1 + math.exp(-k)) ** 2 / (1 + math.exp(-2 * k)) for k in (2, 1)]
    assert metrics["ekipl/weights/ess_smallest"] == pytest.approx(min(sizes))
    assert metrics["ekipl/weights/ess_mean"] == pytest.approx(sum(sizes) / 2)
    assert metrics["ekipl/weights/bias_bound"] > 0


def test_groups_whose_log_probabilities_nobody_knows_have_no_metrics():
    rows = [BatchRow(0, "a", WeighedRow("gpt", -5.0, 9), 1.0)]
    assert weigh(rows, GROUPS, DEFAULTS) == ({}, {})


def test_clipped_rows_are_counted():
    rows = [BatchRow(0, "a", expert(-1.0, -9.0), 1.0), BatchRow(1, "a", policy(), 1.0)]
    _, metrics = weigh(rows, GROUPS, WeightSettings(mode="clip", clip=2.0), ["gpt"])
    assert metrics["ekipl/weights/share_clipped"] == 0.5


def test_no_metric_of_the_weights_is_reduced_by_accident():
    _, metrics = weigh(BATCH, GROUPS, WeightSettings(mode="snis"), ["gpt", "gemini"])
    assert metrics
    assert not [name for name in metrics if any(trap in name for trap in ("min", "max", "sum", "gemini"))]


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"logprobs": [-1.0, -2.5]}, -3.5),
        ({"logprobs": None}, None),
        ({"logprobs": []}, None),
        ({"logprobs": [-1.0], "thought_tokens": 300}, None),
        ({"logprobs": [-1.0, math.nan]}, None),
        ({"logprobs": [-1.0, -math.inf]}, None),
    ],
)
def test_an_answer_after_hidden_reasoning_or_with_what_is_no_number_has_no_log_probability(told, known):
    assert Answer("gpt", 0, "x", AnswerStatus.FINISHED, **told).log_probability == known


SERVER = {"name": "gpt", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("mode", "expert_settings", "says"),
    [
        ("per_source", {}, "logprobs is false"),
        ("snis", {"logprobs": True, "temperature": 0.7}, "Set both to 1"),
        ("clip", {"logprobs": True, "top_p": 0.9}, "Set both to 1"),
        ("clip", {"logprobs": True, "extra": {"top_k": 20, "min_p": 0.0}}, "extra sets top_k, with which"),
        ("geo", {"kind": "offline", "base_url": None}, "imported"),
        ("mixture", {"logprobs": True}, "token_ids is false"),
        ("mixture", {"logprobs": True, "kind": "gemini"}, "mixture_own"),
    ],
)
def test_a_mode_whose_log_probabilities_an_expert_cannot_give_is_refused_with_those_that_work(
    mode, expert_settings, says
):
    with pytest.raises(SettingsError) as caught:
        EkiplSettings.from_config({"weights": {"mode": mode}, "experts": [{**SERVER, **expert_settings}]})
    (problem,) = [p for p in caught.value.problems if "weights.mode" in p]
    assert says in problem
    assert "none, luffy" in problem


@pytest.mark.parametrize("mode", NEEDS_OWN)
def test_an_expert_that_samples_with_what_it_reports_is_accepted(mode):
    neutral = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    EkiplSettings.from_config({"weights": {"mode": mode}, "experts": [{**SERVER, "logprobs": True, "extra": neutral}]})


@pytest.mark.parametrize("mode", NEEDS_NOTHING)
def test_modes_that_need_nothing_work_with_every_expert(mode):
    EkiplSettings.from_config({"weights": {"mode": mode}, "experts": [SERVER]})


def test_a_cut_answer_has_no_log_probability_of_its_own():
    with pytest.raises(SettingsError, match="Set drop"):
        EkiplSettings.from_config({"weights": {"mode": "snis"}, "too_long": "cut"})


@pytest.mark.parametrize("block", [{"mode": "exact"}, {"clip": 0.0}, {"geo_delta": 1.0}, {"luffy_gamma": 0.0}])
def test_what_cannot_work_about_weights_is_said(block):
    with pytest.raises(SettingsError) as caught:
        EkiplSettings.from_config({"weights": block})
    assert "ekipl.weights" in caught.value.problems[0]


def test_every_trap_that_the_documentation_lists_has_its_test():
    root = Path(__file__).parents[2]
    section = (root / "docs/selection_and_weights.md").read_text().partition("## Traps")[2].partition("\n## ")[0]
    traps = [line for line in section.splitlines() if re.match(r"\| \d+ ", line)]
    assert [int(line.split()[1]) for line in traps] == list(range(1, 21))
    tests = "".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    for line in traps:
        named = re.findall(r"`(test_\w+)`", line)
        assert named, line
        assert [name for name in named if f"def {name}(" not in tests] == []


def test_weights_need_neither_torch_nor_numpy():
    code = "import sys, ekipl_rollout.weigh.batch; print(not {'torch', 'verl', 'ray', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"
