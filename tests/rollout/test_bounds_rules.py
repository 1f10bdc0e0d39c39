"""Rates, back-off, breaker and budget, each by itself with a clock of the test."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_rollout.bounds.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S, Backoff
from ekipl_rollout.bounds.breaker import COUNTED, FATAL, Breaker, State
from ekipl_rollout.bounds.budget import Budget, nano
from ekipl_rollout.bounds.rates import MINUTE, Rate, Window
from ekipl_rollout.errors import Failure


def most_in_any(events, seconds):
    """Largest amount that lies in any half-open window of `seconds`."""
    return max((sum(a for at, a in events if start <= at < start + seconds) for start, _ in events), default=0)


# --- rates ---------------------------------------------------------------------------------------------------------------


def run_rate(rate, requests):
    """Lets requests (pause before it, amount) out as soon as `rate` allows; returns (time, amount) of each."""
    now, events = 0.0, []
    for pause, amount in requests:
        now += pause
        while (wait := rate.wait(amount, now)) > 0:
            now += wait
        rate.take(amount, now)
        events.append((now, amount))
    return events


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.sampled_from([0.5, 1.0, 6.0, 60.0]),
    st.lists(st.floats(0, 20), min_size=1, max_size=80),
)
def test_no_minute_ever_holds_more_requests_than_the_limit(limit, burst_s, pauses):
    events = run_rate(Rate(limit, burst_s), [(pause, 1) for pause in pauses])
    assert most_in_any(events, MINUTE) <= limit
    assert most_in_any(events, burst_s) <= max(limit * burst_s / MINUTE, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 1000)), min_size=1, max_size=60))
def test_no_minute_ever_holds_more_tokens_than_the_limit(requests):
    events = run_rate(Rate(1000), requests)
    assert most_in_any(events, MINUTE) <= 1000


def test_a_limit_is_used_in_full():
    events = run_rate(Rate(60, 1.0), [(0.0, 1)] * 240)
    assert events[-1][0] == pytest.approx(239, abs=1e-6)


def test_a_burst_goes_out_at_once_and_the_rest_of_the_minute_in_its_time():
    events = run_rate(Rate(60, 10.0), [(0.0, 1)] * 30)
    assert [at for at, _ in events] == [0.0] * 10 + [10.0] * 10 + [20.0] * 10


def test_a_slow_limit_still_lets_one_request_out_at_a_time():
    events = run_rate(Rate(5, 1.0), [(0.0, 1)] * 7)
    assert [at for at, _ in events] == [0.0, 1.0, 2.0, 3.0, 4.0, 60.0, 61.0]


def test_more_than_a_minute_holds_never_fits():
    assert Rate(1000).wait(1001, 1.0) == float("inf")


def test_tokens_that_were_not_used_are_free_again():
    rate = Rate(1000)
    taken = rate.take(1000, 0.0)
    assert rate.wait(500, 10.0) == 50.0
    rate.correct(taken, 100, 10.0)
    assert rate.wait(500, 10.0) == 0.0
    assert rate.wait(1000, 10.0) == 50.0


def test_tokens_beyond_the_reservation_count():
    rate = Rate(1000)
    rate.correct(rate.take(100, 0.0), 950, 1.0)
    assert rate.wait(100, 1.0) == 59.0


def test_a_correction_that_comes_after_the_minute_changes_nothing():
    window = Window(10, 60.0)
    rate = Rate(10)
    old = rate.take(10, 0.0)
    rate.take(4, 61.0)
    rate.correct(old, 1, 62.0)
    assert rate.wait(6, 62.0) == 0.0
    assert rate.wait(7, 62.0) == 59.0
    assert window.wait(10, 0.0) == 0.0


def test_no_limit_never_waits():
    rate = Rate(None)
    assert rate.wait(10**12, 0.0) == 0.0
    rate.correct(rate.take(5, 0.0), 1, 0.0)


# --- requests in flight ----------------------------------------------------------------------------------------------------


def test_requests_wait_for_others_when_the_limit_is_reached():
    backoff = Backoff(4)
    assert backoff.wait(3, 0.0) == 0.0
    assert backoff.wait(4, 0.0) is None


def test_busy_halves_once_for_all_requests_that_were_out_together():
    backoff = Backoff(16)
    for _ in range(16):
        backoff.busy(sent_at=0.0, now=1.0, retry_after_s=None)
    assert backoff.limit == 8
    backoff.busy(sent_at=1.5, now=2.0, retry_after_s=None)
    assert backoff.limit == 4


def test_the_limit_never_falls_below_one_nor_rises_above_its_ceiling():
    backoff = Backoff(3)
    for i in range(2000):
        backoff.busy(i, i + 0.5, None)
    assert backoff.limit == 1
    for _ in range(100):
        backoff.succeeded(in_flight=3)
    assert backoff.limit == 3


def test_success_raises_the_limit_only_where_it_was_felt():
    backoff = Backoff(16)
    backoff.busy(0.0, 1.0, None)
    backoff.succeeded(in_flight=0)
    assert backoff.limit == 8
    for _ in range(8):
        backoff.succeeded(in_flight=8)
    assert 8.9 < backoff.limit < 9.1


def test_retry_after_holds_for_everybody():
    backoff = Backoff(4)
    backoff.busy(0.0, 1.0, retry_after_s=7.0)
    assert backoff.wait(0, 1.0) == 7.0
    backoff.busy(0.0, 2.0, retry_after_s=1.0)
    assert backoff.wait(0, 2.0) == 6.0


def test_without_retry_after_the_pause_doubles_up_to_a_bound():
    backoff, pauses = Backoff(4), []
    for i in range(12):
        at = i * 1000.0
        backoff.busy(at, at, None)
        pauses.append(backoff.wait(0, at))
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


# --- breaker ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", sorted(FATAL))
def test_one_fatal_failure_opens_it(failure):
    breaker = Breaker(rest_s=30)
    breaker.sent(1, 0.0)
    breaker.ended(1, 0.0, 1.0, failure)
    assert breaker.state(1.0) is State.OPEN
    assert not breaker.admits(30.9)
    assert breaker.admits(31.0)
    assert breaker.why is failure


@pytest.mark.parametrize("failure", sorted(COUNTED))
def test_other_failures_open_it_when_they_come_in_a_row(failure):
    breaker = Breaker(failures_to_rest=3)
    for i in range(2):
        breaker.ended(i, i, i + 0.5, failure)
    breaker.ended(7, 2.0, 2.5, None)
    for i in range(3, 5):
        breaker.ended(i, i, i + 0.5, failure)
    assert breaker.state(5.0) is State.CLOSED
    breaker.ended(5, 5.0, 5.5, failure)
    assert breaker.state(5.5) is State.OPEN


def test_requests_that_were_under_way_together_count_as_one_failure():
    breaker = Breaker(failures_to_rest=3)
    for i in range(64):
        breaker.ended(i, 0.0, 1.0 + i / 100, Failure.UNREACHABLE)
    assert breaker.state(2.0) is State.CLOSED


@pytest.mark.parametrize("failure", sorted(set(Failure) - FATAL - COUNTED))
def test_refusals_and_a_busy_server_never_open_it(failure):
    breaker = Breaker(failures_to_rest=1)
    for i in range(50):
        breaker.ended(i, i, i + 0.5, failure)
    assert breaker.state(50.0) is State.CLOSED


def test_one_probe_goes_out_after_the_rest_and_the_others_wait_for_it():
    breaker = Breaker(rest_s=30)
    breaker.ended(0, 0.0, 0.0, Failure.UNAUTHORIZED)
    assert breaker.state(30.0) is State.HALF_OPEN
    breaker.sent(1, 30.0)
    assert not breaker.admits(30.0)
    breaker.ended(1, 30.0, 31.0, None)
    assert breaker.state(31.0) is State.CLOSED
    assert breaker.admits(31.0)
    assert breaker.why is None


def test_each_probe_that_fails_doubles_the_rest_up_to_a_bound():
    breaker, now, rests = Breaker(rest_s=30, longest_rest_s=100), 0.0, []
    breaker.ended(0, 0.0, 0.0, Failure.NOT_FOUND)
    for probe in range(1, 5):
        rests.append(breaker.rests_for(now))
        now += rests[-1]
        breaker.sent(probe, now)
        breaker.ended(probe, now, now, Failure.UNREACHABLE)
    assert rests == [30, 60, 100, 100]
    now += 100
    breaker.sent(9, now)
    breaker.ended(9, now, now, Failure.BLOCKED)  # it answered, and it knows the key
    assert breaker.state(now) is State.CLOSED
    breaker.ended(10, now, now, Failure.NOT_FOUND)
    assert breaker.rests_for(now) == 30


def test_an_answer_to_a_request_from_before_does_not_close_it():
    breaker = Breaker()
    breaker.ended(1, 0.0, 1.0, Failure.OUT_OF_QUOTA)
    breaker.ended(2, 0.5, 2.0, None)
    assert breaker.state(2.0) is State.OPEN


def test_a_probe_that_is_lost_gives_its_place_to_the_next():
    breaker = Breaker(rest_s=30)
    breaker.ended(0, 0.0, 0.0, Failure.NOT_FOUND)
    breaker.sent(1, 30.0)
    breaker.forget_probe(1)
    assert breaker.admits(31.0)


# --- budget ----------------------------------------------------------------------------------------------------------------


def test_nano_dollars_are_exact_and_never_less_than_was_meant():
    assert nano(0.1) == 100_000_000
    assert nano(0.15e-6) == 150
    assert nano(1.5e-10) == 1
    assert sum(nano(0.1) for _ in range(10)) == nano(1.0)


def test_what_is_out_counts_until_it_is_settled():
    budget = Budget(run=100)
    assert budget.ask("gpt", None, 60) == "fits"
    budget.reserve(1, "gpt", None, 60)
    assert budget.ask("gpt", None, 60) == "wait"
    assert budget.ask("gpt", None, 101) == "never"
    budget.settle(1, 10)
    assert budget.ask("gpt", None, 90) == "fits"
    assert (budget.spent(), budget.reserved(), budget.left()) == (10, 0, 90)


def test_an_unknown_end_costs_the_whole_reservation_and_a_second_settling_nothing():
    budget = Budget(run=100)
    budget.reserve(1, "gpt", 3, 60)
    assert budget.settle(1, None).nano == 60
    assert budget.settle(1, 0) is None
    assert budget.spent(step=3) == 60


def test_each_of_the_three_limits_holds():
    budget = Budget(run=100, step=50, experts={"gpt": 30})
    assert budget.ask("gpt", 1, 31) == "never"
    assert budget.ask("gemini", 1, 51) == "never"
    assert budget.ask("gemini", None, 51) == "fits"
    budget.charge("gemini", 1, 50)
    assert budget.ask("gemini", 1, 1) == "never"
    assert budget.ask("gemini", 2, 50) == "fits"
    assert budget.left("gpt") == 30
    assert budget.left("gemini") is None


moves = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("ab"), st.sampled_from([None, 1, 2]), st.integers(0, 40)),
        st.tuples(st.just("settle"), st.integers(0, 20), st.floats(0, 1)),
        st.tuples(st.just("lost"), st.integers(0, 20)),
        st.tuples(st.just("crash")),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_no_order_of_asking_settling_losing_and_crashing_exceeds_a_limit(moves):
    limits = {"run": 100, "step": 60, "a": 50}
    true = []  # (expert, step, cost) of everything that a provider has billed
    gone = []  # what the ledger holds: (expert, step, nano)
    out = {}
    budget = Budget(limits["run"], limits["step"], {"a": limits["a"], "b": None})
    for number, move in enumerate(moves):
        if move[0] == "ask":
            _, expert, step, amount = move
            if budget.ask(expert, step, amount) == "fits":
                budget.reserve(number, expert, step, amount)
                out[number] = (expert, step, amount)
        elif move[0] == "crash":  # everything that was out may have been billed in full
            true += out.values()
            gone += out.values()
            out = {}
            budget = Budget(limits["run"], limits["step"], {"a": limits["a"], "b": None})
            for expert, step, amount in gone:
                budget.charge(expert, step, amount)
        elif out:
            request = list(out)[move[1] % len(out)]
            expert, step, amount = out.pop(request)
            cost = int(amount * move[2]) if move[0] == "settle" else amount
            budget.settle(request, cost if move[0] == "settle" else None)
            true.append((expert, step, cost))
            gone.append((expert, step, cost))
        worst = true + list(out.values())
        assert sum(cost for _, _, cost in worst) <= limits["run"]
        assert sum(cost for expert, _, cost in worst if expert == "a") <= limits["a"]
        for which in (1, 2):
            assert sum(cost for _, step, cost in worst if step == which) <= limits["step"]
        assert budget.spent() + budget.reserved() == sum(cost for _, _, cost in worst)
