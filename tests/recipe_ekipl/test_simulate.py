"""The model of a step: what must be true whatever is drawn, and the benchmark that it is checked against."""

import json
from dataclasses import replace

import pytest

from ekipl_rollout.settings import AskSettings, RetrySettings
from recipe.ekipl.simulate.__main__ import main
from recipe.ekipl.simulate.model import look, simulate
from recipe.ekipl.simulate.world import World

FAST = World(prompts=16, latency_s=1.0, latency_p95_s=1.0, rollout_s=10.0, rest_s=5.0)


def seconds(world, **changes):
    return simulate(replace(world, **changes), steps=2)


def test_experts_that_are_faster_than_the_rollout_cost_nothing():
    for step in seconds(FAST):
        assert (step.seconds, step.exposed_s, step.answered) == (pytest.approx(15.0), pytest.approx(0.0), 32)


def test_experts_that_are_slower_cost_what_they_are_slower():
    for step in seconds(FAST, latency_s=14.0, latency_p95_s=14.0):
        assert step.exposed_s == pytest.approx(14.0 - 10.0, abs=0.1)


def test_a_group_never_waits_beyond_its_patience():
    slow = replace(FAST, latency_s=500.0, latency_p95_s=500.0, timeout_s=60.0)
    assert all(step.exposed_s == pytest.approx(50.0) and step.answered == 0 for step in seconds(slow))
    assert all(step.exposed_s == pytest.approx(2.0) for step in seconds(slow, ask=AskSettings(wait_s=2.0)))


def test_one_request_in_flight_is_one_after_the_other():
    step = seconds(FAST, max_in_flight=1, latency_s=2.0, latency_p95_s=2.0)[0]
    assert step.seconds == pytest.approx(16 * 2.0 + 5.0, abs=0.1)


def test_the_limit_per_minute_is_the_runs_own():
    step = simulate(replace(FAST, prompts=64, requests_per_minute=60.0, timeout_s=600.0), steps=1)[0]
    # 6 at once (burst_s), then 6 every 6 s: the 64th goes out after 60 s
    assert step.seconds == pytest.approx(60.0 + 1.0 + 5.0, abs=0.5)


def test_requests_that_fail_are_sent_again_and_counted():
    step = simulate(replace(FAST, prompts=200, failures=0.2, max_in_flight=400), steps=1, seed=1)[0]
    assert step.sent == pytest.approx(400 / 0.8, rel=0.1)
    assert step.answered > 390
    once = simulate(replace(FAST, failures=0.2, retry=RetrySettings(attempts=1)), steps=1, seed=1)[0]
    assert once.answered < once.asked


@pytest.mark.parametrize(
    ("changes", "bottleneck"),
    [
        ({}, "rollout"),
        ({"requests_per_minute": 30.0, "timeout_s": 600.0}, "requests_per_minute"),
        ({"requests_per_minute": 30.0, "timeout_s": 10.0}, "requests_per_minute"),
        ({"max_in_flight": 1, "latency_s": 5.0, "latency_p95_s": 5.0}, "max_in_flight"),
        ({"latency_s": 40.0, "latency_p95_s": 40.0, "max_in_flight": 64}, "latency"),
    ],
)
def test_the_bottleneck_is_what_would_help_most(changes, bottleneck):
    assert look(replace(FAST, **changes)).bottleneck == bottleneck


def test_the_same_seed_gives_the_same_steps():
    noisy = World(prompts=32, failures=0.1)
    assert simulate(noisy, seed=3) == simulate(noisy, seed=3) != simulate(noisy, seed=4)


def test_the_command_prints_a_table_a_plot_and_one_json_line(tmp_path, capsys):
    words = ["--gpus", "8,64", "--requests-per-minute", "none,200", "--dollars-per-request", "0.01"]
    assert main([*words, "--plot", str(tmp_path / "step.svg")]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)["outlook"]
    assert [(row["gpus"], row["requests_per_minute"]) for row in rows] == [(8, None), (64, None), (8, 200), (64, 200)]
    assert rows[3]["step_s"] > rows[2]["step_s"]
    assert rows[0]["dollars"] == pytest.approx(64 * 2 * 0.01, rel=0.2)
    assert "<svg" in (tmp_path / "step.svg").read_text()


def test_all_that_cannot_be_simulated_is_said_at_once(capsys):
    assert main(["--experts", "0", "--latency-s", "9", "--requests-per-minute", "0.5"]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in ("experts=0", "latency_p95_s=5.0", "requests_per_minute=0.5"))
