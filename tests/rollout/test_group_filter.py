import random
import statistics
import sys
import types
from collections import Counter

import pytest

from ekipl_rollout.answer import POLICY, Candidate
from ekipl_rollout.errors import SettingsError
from ekipl_rollout.group_filter import rank, select
from ekipl_rollout.keep.rules import RULES
from ekipl_rollout.keep.spread import is_silent, mean_and_std
from ekipl_rollout.keep.ties import TIES
from ekipl_rollout.settings import EkiplSettings, SelectSettings


def group(*answers):
    """(source, score) or (source, score, length); a score of 2 is right."""
    return [
        Candidate(source, session, score, {"accuracy": float(score >= 2)}, *length)
        for session, (source, score, *length) in enumerate(answers)
    ]


def keep(candidates, num_kept, baseline="selected", seed=0, **settings):
    return select(candidates, num_kept, SelectSettings(**settings), baseline, seed)


def sources(selection):
    return [c.source for c in selection.kept]


def scores(selection):
    return [c.score for c in selection.kept]


def reasons(selection):
    return Counter(reason for _, reason in selection.dropped)


def test_the_best_are_kept_whoever_gave_them():
    selection = keep(group((POLICY, 0.0), (POLICY, 1.0), ("gpt", 2.0), ("gpt", 0.5)), 2)
    assert sources(selection) == ["gpt", POLICY]


def test_policy_answer_wins_a_tie_with_an_expert():
    assert sources(keep(group(("gpt", 1.0), (POLICY, 1.0)), 1)) == [POLICY]


def test_expert_answer_wins_a_tie_when_asked_to():
    assert sources(keep(group((POLICY, 1.0), ("gpt", 1.0)), 1, ties="expert_first")) == ["gpt"]


def test_random_ties_are_the_same_for_the_same_seed_and_differ_between_seeds():
    candidates = group(*[(POLICY, 1.0)] * 4, *[("gpt", 1.0)] * 4)
    chosen = {tuple(c.session for c in keep(candidates, 4, seed=seed, ties="random").kept) for seed in range(20)}
    assert len(chosen) > 1
    assert keep(candidates, 4, seed=7, ties="random").kept == keep(candidates, 4, seed=7, ties="random").kept


def test_round_robin_gives_every_source_its_turn_among_equals():
    candidates = group(*[(POLICY, 1.0)] * 3, *[("a", 1.0)] * 3, *[("b", 1.0)] * 3)
    assert sources(keep(candidates, 6, ties="round_robin")) == [POLICY, "a", "b"] * 2


def test_shortest_prefers_few_tokens_among_equals_only():
    candidates = group((POLICY, 1.0, 9), ("a", 1.0, 3), ("b", 2.0, 50))
    assert sources(keep(candidates, 2, ties="shortest")) == ["b", "a"]


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("rule", RULES)
def test_whatever_the_rule_the_order_of_arrival_does_not_matter_and_nothing_is_lost_or_doubled(rule, ties):
    rng = random.Random(f"{rule} {ties}")
    for _ in range(60):
        candidates = group(*((rng.choice([POLICY, "a", "b"]), rng.choice([0.0, 1.0, 2.0])) for _ in range(12)))
        g = rng.choice([2, 5, 8, 20])
        selection = keep(candidates, g, rule=rule, ties=ties)
        assert len(selection.kept) <= g
        assert {*selection.kept, *(c for c, _ in selection.dropped)} == set(candidates)
        assert len(selection.kept) + len(selection.dropped) == len(candidates)
        assert keep(rng.sample(candidates, 12), g, rule=rule, ties=ties).kept == selection.kept


def test_a_short_group_is_kept_whole_and_never_filled_up():
    assert len(keep(group((POLICY, 1.0), ("gpt", 2.0)), 8).kept) == 2


def test_every_drop_has_a_reason():
    selection = keep(group((POLICY, 2.0), (POLICY, 1.0), ("gpt", 1.0), ("gpt", 0.0)), 2)
    assert [(c.source, reason) for c, reason in selection.dropped] == [("gpt", "lost_a_tie"), ("gpt", "lower_reward")]


ALL_RIGHT = group(*[(POLICY, 2.0)] * 3, *[(POLICY, 1.0)] * 5, *[("gpt", 2.0)] * 8, *[("gpt", 0.0)] * 8)


def test_the_papers_rule_goes_silent_where_contrast_does_not():
    assert is_silent(scores(keep(ALL_RIGHT, 8)))
    selection = keep(ALL_RIGHT, 8, rule="contrast")
    assert scores(selection) == [2.0] * 4 + [1.0] * 4
    assert all(c.is_policy for c in selection.kept if c.score < 2)
    assert reasons(selection) == {"passed_over": 7, "lost_a_tie": 1, "lower_reward": 8}


def test_contrast_leaves_a_group_alone_that_has_spread_and_never_takes_wrong_experts():
    spread = group((POLICY, 2.0), (POLICY, 0.0), ("gpt", 0.0))
    assert keep(spread, 2, rule="contrast").kept == keep(spread, 2).kept
    only_experts_wrong = group(*[(POLICY, 2.0)] * 2, *[("gpt", 0.0)] * 2)
    assert scores(keep(only_experts_wrong, 2, rule="contrast")) == [2.0, 2.0]


def test_experts_and_policy_takes_the_best_experts_and_the_policy_as_it_came():
    candidates = group((POLICY, 0.0), (POLICY, 0.0), (POLICY, 2.0), ("a", 1.0), ("a", 2.0), ("b", 2.0))
    selection = keep(candidates, 4, rule="experts_and_policy", num_experts=2)
    assert [c.session for c in selection.kept] == [0, 1, 4, 5]
    assert reasons(selection) == {"passed_over": 2}


def test_experts_and_policy_fills_up_from_either_side():
    few_experts = group(*[(POLICY, 0.0)] * 5, ("a", 2.0))
    assert Counter(sources(keep(few_experts, 4, rule="experts_and_policy", num_experts=2))) == {POLICY: 3, "a": 1}
    few_policy = group((POLICY, 0.0), *[("a", 2.0)] * 5)
    assert Counter(sources(keep(few_policy, 4, rule="experts_and_policy", num_experts=2))) == {POLICY: 1, "a": 3}


def test_experts_enter_only_where_the_policy_fails():
    failing = group((POLICY, 1.0), (POLICY, 0.0), ("a", 2.0))
    assert sources(keep(failing, 2, rule="unsolved_only")) == ["a", POLICY]
    solved = group((POLICY, 2.0), (POLICY, 0.0), ("a", 2.0))
    assert scores(keep(solved, 2, rule="unsolved_only")) == [2.0, 0.0]


def test_right_experts_replace_the_worst_wrong_answers_of_the_policy():
    candidates = group((POLICY, 1.0), (POLICY, 0.0), (POLICY, 2.0), ("a", 2.0), ("a", 1.0))
    selection = keep(candidates, 3, rule="replace_wrong", num_experts=3)
    assert [c.session for c in selection.kept] == [0, 2, 3]
    assert {c.session: reason for c, reason in selection.dropped} == {1: "lower_reward", 4: "lost_a_tie"}


def test_few_experts_counts_all_experts_together():
    candidates = group(*[(POLICY, 0.0)] * 4, *[("a", 2.0)] * 3, *[("b", 2.0)] * 3)
    assert Counter(sources(keep(candidates, 4, rule="few_experts", num_experts=1))) == {"a": 1, POLICY: 3}


def test_only_so_many_answers_of_each_expert_enter():
    candidates = group(*[(POLICY, 0.0)] * 2, *[("a", 2.0)] * 4, *[("b", 2.0)] * 4)
    selection = keep(candidates, 8, max_per_expert=2)
    assert Counter(sources(selection)) == {"a": 2, "b": 2, POLICY: 2}
    assert reasons(selection) == {"expert_full": 4}


def test_wrong_experts_never_enter_when_asked_to():
    selection = keep(group((POLICY, 0.0), ("a", 1.0), ("a", 2.0)), 3, correct_experts_only=True)
    assert (sources(selection), reasons(selection)) == (["a", POLICY], {"expert_wrong": 1})


def test_places_for_the_policy_are_taken_from_the_worst_experts():
    candidates = group((POLICY, 0.0), (POLICY, 1.0), *[("a", 2.0)] * 2, *[("b", 1.5)] * 2)
    selection = keep(candidates, 4, min_policy=1)
    assert scores(selection) == [2.0, 2.0, 1.5, 1.0]
    assert reasons(selection) == {"policy_reserved": 1, "lower_reward": 1}


@pytest.mark.parametrize("baseline", ["selected", "all", "policy_only"])
def test_no_expert_with_a_negative_advantage_stays_when_they_are_dropped(baseline):
    rng = random.Random(baseline)
    for _ in range(200):
        candidates = group(*((rng.choice([POLICY, "a"]), rng.choice([0.0, 1.0, 2.0])) for _ in range(9)))
        kept = keep(candidates, 6, baseline, negative_experts="drop").kept
        over = {"selected": kept, "all": candidates, "policy_only": [c for c in candidates if c.is_policy]}[baseline]
        mean = mean_and_std([c.score for c in over])[0]
        assert len(kept) <= 2 or not [c for c in kept if not c.is_policy and c.score < mean - 1e-9]


def test_two_answers_always_stay():
    assert len(keep(group(("a", 2.0), ("a", 1.0), ("a", 0.0)), 3, negative_experts="drop").kept) == 2


def two_of_each(ranked, num_kept, num_experts):
    seen = Counter()
    return [c for c in ranked if seen.update([c.source]) or seen[c.source] <= 2][:num_kept]


def test_a_rule_of_ones_own_goes_by_its_dotted_name():
    selection = keep(ALL_RIGHT, 8, rule=f"{__name__}.two_of_each")
    assert Counter(sources(selection)) == {POLICY: 2, "gpt": 2}
    assert reasons(selection) == {"lost_a_tie": 7, "lower_reward": 13}


@pytest.mark.parametrize("result", [lambda r: r[:1] * 2, lambda r: group((POLICY, 1.0)), lambda r: r])
def test_a_rule_of_ones_own_is_held_to_what_a_rule_may_do(result, monkeypatch):
    module = types.ModuleType("some_lab_rules")
    module.rule = lambda ranked, num_kept, num_experts: result(ranked)
    monkeypatch.setitem(sys.modules, "some_lab_rules", module)
    from ekipl_rollout.settings.select import find_rule

    find_rule.cache_clear()
    with pytest.raises(ValueError, match="some_lab_rules.rule"):
        keep(ALL_RIGHT, 4, rule="some_lab_rules.rule")


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"rule": "top_h"}, "Choose from top_g"),
        ({"rule": "no_such_lab.rule"}, "No module named"),
        ({"rule": "math.pi"}, "it is not a function"),
        ({"ties": "coin"}, "Choose from policy_first"),
        ({"negative_experts": "maybe"}, "Choose from keep, zero, drop"),
        ({"max_per_expert": -1}, "0 or more"),
        ({"min_policy": -1}, "0 or more"),
    ],
)
def test_what_cannot_work_about_selection_is_said_with_the_way_out(block, says):
    with pytest.raises(SettingsError) as caught:
        EkiplSettings.from_config({"select": block})
    assert len(caught.value.problems) == 1
    assert says in caught.value.problems[0]


def test_ranking_is_by_reward_then_ties():
    assert [c.session for c in rank(group(("a", 1.0), (POLICY, 1.0), ("b", 2.0)))] == [2, 1, 0]


@pytest.mark.parametrize(("values", "silent"), [([1, 1, 1], True), ([1, 1, 2], False), ([], True), ([5], True)])
def test_a_group_without_spread_is_silent(values, silent):
    assert is_silent(values) is silent


def test_mean_and_std_are_verls_with_the_unbiased_deviation():
    values = [0.0, 1.0, 2.0, 2.0]
    assert mean_and_std(values) == pytest.approx((statistics.fmean(values), statistics.stdev(values)), rel=1e-15)
    assert mean_and_std([3.0]) == (0.0, 1.0)
