"""Text from strangers: bounded versions of what `python -m ekipl_reward.fuzz` does at full size."""

import pytest

from ekipl_reward import compute_score
from ekipl_reward.benchmark import (
    JUDGES,
    SIZES,
    TRUTHS,
    growth,
    growth_lines,
    of_length,
    restated,
    seconds_of,
    speed,
    speed_lines,
    typical,
)
from ekipl_reward.fuzz import TRUTHS as FUZZ_TRUTHS
from ekipl_reward.fuzz import Findings, fuzz, main, megabyte_responses


@pytest.mark.parametrize("rules", ["paper", "released"])
def test_two_thousand_hostile_responses_break_no_promise(rules):
    findings = fuzz(2000, seed=10_000_000, options={"rules": rules})
    assert findings.failures == []
    assert findings.judged == 2000
    assert len(findings.reasons) > 5  # they reach more than one rule


@pytest.mark.parametrize("rules", ["paper", "released"])
@pytest.mark.parametrize("task", list(FUZZ_TRUTHS))
def test_a_megabyte_of_anything_takes_milliseconds(rules, task):
    findings = Findings()
    for name, response in megabyte_responses().items():
        findings.look(name, task, response, FUZZ_TRUTHS[task][0], {"rules": rules})
    assert findings.failures == []
    assert findings.slowest_seconds < 0.25, findings.slowest  # 0.05 on an idle machine: see benchmark and fuzz


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        b"<answer>3</answer>",
        bytearray(b"3"),
        3,
        ["3"],
        "\ud83d",
        "\0" * 10,
        "<think>" * 1000,
        "(" * 10_000,
        "9^9^9^9",
        "\u202e3",
        "３",
    ],
)
@pytest.mark.parametrize("rules", ["paper", "released"])
def test_no_garbage_raises_or_scores(garbage, rules):
    for source, truth in (("clevr_math", "3"), ("geomath", "45"), ("trance", "change_size(0, small)")):
        assert compute_score(source, garbage, truth, rules=rules)["score"] == 0.0


def test_what_is_no_text_says_so():
    assert compute_score("clevr_math", None, "3")["reason"] == "not_text"


def test_an_answer_that_is_too_long_to_be_one_is_not_read():
    result = compute_score("clevr_math", f"<think>a</think><answer>{'3' * 5000}</answer>", "3")
    assert (result["reason"], len(result["parsed"])) == ("answer_too_long", 200)


def test_a_lone_surrogate_cannot_break_a_log():
    assert compute_score("clevr_math", "<answer>\ud83d3</answer>", "3")["parsed"] == "?3"


@pytest.mark.parametrize("rules", ["paper", "released"])
@pytest.mark.parametrize(
    ("task", "kind"),
    [("visual_counting", "half tags"), ("spatial_transformation", "one word"), ("structure_perception", "reasoning")],
)
def test_time_grows_in_proportion_to_length(task, kind, rules):
    small, large = (
        seconds_of(0.02, JUDGES[rules], task, of_length(task, kind, size), TRUTHS[task])
        for size in (SIZES[2], SIZES[3])
    )
    assert large / small < 40  # ten times the length; quadratic would be a hundred


def test_the_restated_patterns_of_the_benchmark_do_the_originals_work():
    for task, truth in TRUTHS.items():
        for response in typical(task, 50):
            expected = compute_score(task, response, truth, rules="released")["score"]
            assert restated(task, response, truth) == pytest.approx(expected)


def test_the_benchmark_prints_its_tables(monkeypatch):
    monkeypatch.setattr("ekipl_reward.benchmark.SIZES", (100, 1000))
    fast, slow = speed(10, 0.0), growth(0.0)
    assert all(row[name] > 0 for row in fast for name in JUDGES)
    assert len(speed_lines(fast)) == 4
    assert len(growth_lines(slow)) == len(slow) + 1


def test_the_fuzzer_reports_a_failure_and_repeats_it_from_its_seed(monkeypatch, capsys):
    monkeypatch.setattr("ekipl_reward.fuzz.compute_score", lambda *_, **__: 1 / 0)
    assert main(["--count", "3", "--seed", "41", "--skip-megabytes"]) == 1
    assert "FAILURE seed 42" in capsys.readouterr().out


def test_a_count_that_judges_nothing_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--count", "-3"])
    assert "--count -3" in capsys.readouterr().err
