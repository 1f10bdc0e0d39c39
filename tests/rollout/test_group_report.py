from collections import Counter

import pytest

from ekipl_rollout.answer import POLICY, Answer, AnswerStatus, Candidate
from ekipl_rollout.ask import Asked
from ekipl_rollout.bounds.governor import Governor
from ekipl_rollout.bounds.report import bounds_metrics
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.group_files import GroupWriter, forget_after, group_paths, read_groups
from ekipl_rollout.group_filter import select
from ekipl_rollout.group_report import Rollout, silence_warning, step_metrics, summarize
from ekipl_rollout.settings import AdvantageSettings, BoundsSettings, EkiplSettings, ExpertSettings, SelectSettings


def candidate(source, session, score, accuracy=0.0):
    return Candidate(source, session, score, {"format": 1.0, "accuracy": accuracy}, length=10, text=f"{source} says")


def one_group():
    candidates = [candidate(POLICY, 0, 1.0), candidate(POLICY, 1, 2.0, 1.0), candidate("gemini", 2, 2.0, 1.0)]
    answers = [
        Answer("gemini", 0, "x", AnswerStatus.FINISHED, 7, 0.5, 1.5),
        Answer("gemini", 1, "", AnswerStatus.EMPTY, 3, 0.5, 1.5),
    ]
    asked = Asked(
        answers,
        [("gpt", Failure.TIMED_OUT)] * 2,
        Counter(gemini=2, gpt=2),
        Counter(gemini=1, gpt=0),
        exposed_wait_s=0.25,
    )
    selection = select(candidates, 2)
    return selection, summarize(candidates, selection, asked, 2, [(answers[1], "empty")])


def test_a_group_knows_its_statistics_over_kept_and_over_all():
    _, summary = one_group()
    assert summary["selected"] == (2.0, 0.0)
    assert summary["all"][0] == 5 / 3
    assert summary["zero_variance"] is True
    assert (summary["solve_none"], summary["solve_all"], summary["short"]) == (False, False, False)


def test_step_metrics_count_every_source_and_every_failure():
    _, summary = one_group()
    metrics = step_metrics([summary, summary], ["gemini", "gpt"])
    assert metrics["ekipl/groups/zero_variance"] == 1.0
    assert metrics["ekipl/expert1/share"] == metrics["ekipl/policy/share"] == 0.5
    assert metrics["ekipl/expert1/unusable_empty"] == 2.0
    assert metrics["ekipl/expert2/failed_timed_out"] == 4.0
    assert metrics["ekipl/dollars"] == 2.0
    assert metrics["ekipl/dropped/lower_reward"] == 1.0
    assert metrics["ekipl/wait/exposed_longest_s"] == 0.25


def test_asked_answered_and_retried_are_counted_and_recorded_answers_have_no_latency():
    _, summary = one_group()
    metrics = step_metrics([summary, summary], ["gemini", "gpt"])
    assert (metrics["ekipl/expert1/asked"], metrics["ekipl/expert1/answered"]) == (4.0, 4.0)
    assert (metrics["ekipl/expert2/asked"], metrics["ekipl/expert2/answered"]) == (4.0, 0.0)
    assert (metrics["ekipl/expert1/retried"], metrics["ekipl/expert2/retried"]) == (2.0, 0.0)
    assert metrics["ekipl/expert1/latency_p95_s"] == 1.5
    candidates = [candidate(POLICY, 0, 1.0), candidate("gpt", 1, 2.0)]
    free = Asked([Answer("gpt", 0, "x", AnswerStatus.FINISHED, recorded=True)], [], Counter(gpt=1))
    recorded = summarize(candidates, select(candidates, 2), free, 2)
    metrics = step_metrics([recorded], ["gpt"])
    assert metrics["ekipl/expert1/recorded"] == 1.0
    assert "ekipl/expert1/latency_p50_s" not in metrics


def test_sessions_of_the_policy_that_failed_are_counted_and_its_slowest_is_timed():
    candidates = [candidate(POLICY, 0, 1.0), candidate(POLICY, 1, 2.0)]
    fast, slow = (
        summarize(candidates, select(candidates, 2), Asked(), 2, rollout=Rollout(failed, seconds))
        for failed, seconds in ((0, 0.5), (3, 4.0))
    )
    metrics = step_metrics([fast, fast, slow], ["gpt"])
    assert metrics["ekipl/policy/failed_session"] == 3.0
    assert (metrics["ekipl/policy/latency_p50_s"], metrics["ekipl/policy/latency_p95_s"]) == (0.5, 0.5)
    assert "ekipl/policy/failed_session" not in step_metrics([fast], ["gpt"])


def test_the_share_of_rows_whose_experts_were_asked():
    _, asked = one_group()
    candidates = [candidate(POLICY, 0, 1.0), candidate(POLICY, 1, 2.0)]
    alone = summarize(candidates, select(candidates, 2), Asked(), 2)
    metrics = step_metrics([asked, alone, alone, alone], ["gemini", "gpt"])
    assert (metrics["ekipl/asked_share"], metrics["ekipl/asked_ahead_share"]) == (0.25, 0.0)


async def bounds_seen():
    experts = [
        ExpertSettings(name, "openai", "m", "http://127.0.0.1:1/v1", max_dollars=2.0) for name in ("gemini", "gpt")
    ]
    bounds = Governor(BoundsSettings(max_dollars=5.0, max_dollars_per_step=3.0), experts)
    await bounds.settle(await bounds.admit("gemini", tokens=9, dollars=1.0, step=4), tokens=5, dollars=0.5)
    failed = await bounds.admit("gpt", tokens=9, dollars=1.0, step=4)
    await bounds.settle(failed, error=ExpertError(Failure.UNAUTHORIZED, "no", 401))
    await bounds.admit("gemini", tokens=9, dollars=1.0, step=4)
    return bounds_metrics(bounds.snapshot(4), ["gemini", "gpt"])


async def test_money_flight_and_breakers_are_metrics():
    metrics = await bounds_seen()
    assert (metrics["ekipl/budget/spent"], metrics["ekipl/budget/left"]) == (0.5, 3.5)
    assert (metrics["ekipl/budget/step_spent"], metrics["ekipl/budget/step_left"]) == (0.5, 1.5)
    assert (metrics["ekipl/expert1/in_flight"], metrics["ekipl/expert1/budget_left"]) == (1.0, 0.5)
    assert (metrics["ekipl/expert1/resting"], metrics["ekipl/expert2/resting"]) == (0.0, 1.0)
    assert metrics["ekipl/experts_resting"] == 1.0
    assert metrics["ekipl/expert2/requests_failed_unauthorized"] == 1.0


async def test_no_metric_name_is_reduced_by_accident():
    """verl chooses max, min or sum by substring; "gemini" would be reduced by min."""
    _, summary = one_group()
    names = {**step_metrics([summary], ["gemini", "gpt"]), **await bounds_seen()}
    assert not [n for n in names if any(trap in n for trap in ("min", "max", "sum", "total", "gemini"))]


def test_groups_are_written_read_and_forgotten_by_step(tmp_path):
    selection, _ = one_group()
    writer = GroupWriter(tmp_path)
    for step in (1, 2, 2, 3):
        writer.write(step, {"uid": f"u{step}", "row": "r"}, selection)
    assert [(step, len(list(read_groups(path)))) for step, path in group_paths(tmp_path)] == [(1, 1), (2, 2), (3, 1)]
    first = next(read_groups(group_paths(tmp_path)[0][1]))
    assert [(a["source"], a["kept"]) for a in first["answers"]] == [(POLICY, True), ("gemini", True), (POLICY, False)]
    assert forget_after(tmp_path, 1) == 2
    assert [step for step, _ in group_paths(tmp_path)] == [1]


def test_answers_that_could_not_be_used_stand_in_the_group_with_the_reason(tmp_path):
    selection, _ = one_group()
    said = Answer("gpt", 0, "x" * 9_000, AnswerStatus.FINISHED)
    GroupWriter(tmp_path).write(1, {"uid": "u"}, selection, [(said, "too_long")])
    (group,) = read_groups(group_paths(tmp_path)[0][1])
    assert group["unusable"] == [{"source": "gpt", "reason": "too_long", "text": "x" * 8_000}]
    assert len(group["answers"]) == 3


def test_a_process_that_has_written_enough_says_so_once_and_stops(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ekipl_rollout.group_files.MAX_BYTES", 300)
    selection, _ = one_group()
    writer = GroupWriter(tmp_path)
    for _ in range(5):
        writer.write(1, {"uid": "u"}, selection)
    assert len(list(read_groups(group_paths(tmp_path)[0][1]))) < 5
    assert [record.getMessage() for record in caplog.records if "training goes on" in record.getMessage()] != []
    assert len(caplog.records) == 1


def test_a_disk_that_takes_no_more_costs_no_group(tmp_path, caplog):
    selection, _ = one_group()
    writer = GroupWriter(tmp_path)
    (tmp_path / "groups").rmdir()
    for _ in range(3):
        writer.write(1, {"uid": "u"}, selection)
    (record,) = caplog.records
    assert "cannot be written any more" in record.getMessage()


def test_a_reward_that_failed_is_told_from_a_wrong_answer():
    wrong, failed = candidate(POLICY, 0, 0.0), candidate("gpt", 1, 0.0)
    failed.parts["reason"] = "reward_error"
    metrics = step_metrics([summarize([wrong, failed], select([wrong, failed], 2), Asked(), 2)], ["gpt"])
    assert metrics["ekipl/expert1/failed_reward"] == 1.0
    assert "ekipl/policy/failed_reward" not in metrics


def test_a_torn_end_costs_only_the_torn_group(tmp_path):
    selection, _ = one_group()
    writer = GroupWriter(tmp_path)
    for _ in range(3):
        writer.write(1, {"uid": "u"}, selection)
    path = group_paths(tmp_path)[0][1]
    path.write_bytes(path.read_bytes()[:-20])
    assert len(list(read_groups(path))) == 2


def summary_of(*answers, num_kept=4, baseline="selected", negative_experts="keep", experts=True):
    candidates = [candidate(source, i, score, float(score >= 2)) for i, (source, score) in enumerate(answers)]
    std = "selected" if baseline == "selected" else "all"
    keep, advantage = SelectSettings(negative_experts=negative_experts), AdvantageSettings(baseline, std)
    selection = select(candidates, num_kept, keep, baseline)
    return summarize(candidates, selection, Asked(), num_kept, (), keep, advantage)


GOOD_EXPERT = [(POLICY, 0.0), (POLICY, 1.0), *[("gpt", 2.0)] * 4]


def test_equal_kept_rewards_are_silent_for_the_paper_and_teach_against_a_wider_baseline():
    assert [summary_of(*GOOD_EXPERT, baseline=b)["silent"] for b in ("selected", "all", "policy_only")] == [
        True,
        False,
        False,
    ]


def test_rounding_in_a_silent_group_does_not_become_an_advantage():
    """The mean of eight times 1.4 in fp32 is not 1.4; verl divides the difference by a deviation of about 1e-7 + 1e-6."""
    summary = summary_of(*[(POLICY, 1.4)] * 8, num_kept=8)
    assert sorted(summary["zeroed"]) == list(range(8))


@pytest.mark.parametrize("baseline", ["selected", "all", "policy_only"])
def test_the_only_row_of_a_group_is_silent_and_not_given_its_raw_reward(baseline):
    summary = summary_of((POLICY, 2.0), baseline=baseline)
    assert (summary["silent"], summary["zeroed"]) == (True, [0])


def test_one_answer_of_the_policy_is_no_baseline_for_experts():
    """The others' sessions failed. A mean over one would be taken for 0, as verl takes it, and every reward for a gain."""
    summary = summary_of((POLICY, 0.5), ("gpt", 2.0), ("gpt", 1.0), baseline="policy_only")
    assert sorted(summary["zeroed"]) == [0, 1, 2]


def test_a_sure_answer_keeps_its_log_probability_of_zero():
    sure, unknown = candidate("gpt", 0, 2.0), candidate("gpt", 1, 1.0)
    sure.log_own = 0.0
    rows = summarize([sure, unknown], select([sure, unknown], 2), Asked(), 2)["rows"]
    assert rows["0"]["log_own"] == 0.0
    assert "log_own" not in rows["1"]


def test_expert_rows_with_a_negative_advantage_are_zeroed_when_asked_to():
    answers = [(POLICY, 2.0), (POLICY, 0.0), ("gpt", 2.0), ("gpt", 0.0)]
    assert summary_of(*answers)["zeroed"] == []
    assert summary_of(*answers, negative_experts="zero")["zeroed"] == [3]


def test_an_expert_row_that_cannot_be_dropped_for_its_negative_advantage_is_zeroed():
    summary = summary_of(("gpt", 2.0), ("gpt", 0.0), num_kept=2, negative_experts="drop")
    assert (summary["zeroed"], list(summary["rows"])) == ([1], ["0", "1"])


@pytest.mark.parametrize(
    ("answers", "baseline", "experts", "says"),
    [
        (GOOD_EXPERT, "selected", True, "baseline=all"),
        ([(POLICY, 2.0)] * 4, "selected", True, "solves 100%"),
        ([(POLICY, 0.0), ("gpt", 0.0)] * 2, "all", True, "better experts"),
        ([(POLICY, 0.0)] * 4, "selected", False, "higher temperature"),
    ],
)
def test_a_warning_about_silence_says_what_to_change(answers, baseline, experts, says):
    entry = [{"name": "gpt", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}]
    settings = EkiplSettings.from_config(
        {"experts": entry * experts, "advantage": {"baseline": baseline, "std": baseline}}
    )
    silent = summary_of(*answers, baseline=baseline)
    assert says in silence_warning([silent] * 10, settings)
    loud = {**silent, "silent": False}
    assert silence_warning([silent] * 9 + [loud], settings) is None
