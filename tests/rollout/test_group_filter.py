import statistics

import pytest

from ekipl_rollout.answer import POLICY, Candidate
from ekipl_rollout.group_filter import is_silent, keep_top, mean_and_std


def group(*answers):
    return [Candidate(source, session, score) for session, (source, score) in enumerate(answers)]


def kept_sources(selection):
    return [c.source for c in selection.kept]


def test_the_best_are_kept_whoever_gave_them():
    selection = keep_top(group((POLICY, 0.0), (POLICY, 1.0), ("gpt", 2.0), ("gpt", 0.5)), 2)
    assert kept_sources(selection) == ["gpt", POLICY]


def test_policy_answer_wins_a_tie_with_an_expert():
    assert kept_sources(keep_top(group(("gpt", 1.0), (POLICY, 1.0)), 1)) == [POLICY]


def test_expert_answer_wins_a_tie_when_asked_to():
    assert kept_sources(keep_top(group((POLICY, 1.0), ("gpt", 1.0)), 1, ties="expert_first")) == ["gpt"]


def test_random_ties_are_the_same_for_the_same_seed_and_differ_between_seeds():
    candidates = group(*[(POLICY, 1.0)] * 4, *[("gpt", 1.0)] * 4)
    chosen = {tuple(c.session for c in keep_top(candidates, 4, "random", seed).kept) for seed in range(20)}
    assert len(chosen) > 1
    assert keep_top(candidates, 4, "random", 7).kept == keep_top(candidates, 4, "random", 7).kept


def test_a_short_group_is_kept_whole_and_never_filled_up():
    candidates = group((POLICY, 1.0), ("gpt", 2.0))
    assert len(keep_top(candidates, 8).kept) == 2


def test_every_drop_has_a_reason():
    selection = keep_top(group((POLICY, 2.0), (POLICY, 1.0), ("gpt", 1.0), ("gpt", 0.0)), 2)
    assert [(c.source, reason) for c, reason in selection.dropped] == [("gpt", "lost_a_tie"), ("gpt", "lower_reward")]


def test_the_order_in_which_answers_arrived_does_not_matter():
    candidates = group((POLICY, 1.0), ("gpt", 1.0), (POLICY, 2.0), ("b", 1.0))
    assert keep_top(candidates, 3).kept == keep_top(candidates[::-1], 3).kept


@pytest.mark.parametrize(("scores", "silent"), [([1, 1, 1], True), ([1, 1, 2], False), ([], True), ([5], True)])
def test_a_group_without_spread_is_silent(scores, silent):
    assert is_silent(scores) is silent


def test_mean_and_std_are_verls_with_the_unbiased_deviation():
    scores = [0.0, 1.0, 2.0, 2.0]
    assert mean_and_std(scores) == (statistics.fmean(scores), statistics.stdev(scores))
    assert mean_and_std([3.0]) == (0.0, 1.0)
