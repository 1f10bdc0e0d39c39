"""Requests and tokens a minute, and requests in flight, with a clock of the test."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_rollout.bounds.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S, Backoff
from ekipl_rollout.bounds.rates import MINUTE, Rate, Window


def most_in_any(events, seconds):
    """Largest amount that lies in any half-open window of `seconds`."""
    return max((sum(a for at, a in events if start <= at < start + seconds) for start, _ in events), default=0)


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
