"""When an expert rests and how it comes back, with a clock of the test."""

import pytest

from ekipl_rollout.bounds.breaker import COUNTED, FATAL, Breaker, State
from ekipl_rollout.errors import Failure


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
