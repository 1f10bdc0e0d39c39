"""What a request reserves and what it is settled with, whatever becomes of it."""

import asyncio

import pytest

from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import RetrySettings
from tests.rollout.expert_helpers import CountingBounds, ask, client, expert_settings, picture, question

pytestmark = pytest.mark.usefixtures("key")
PRICES = {"dollars_per_million_input": 10.0, "dollars_per_million_output": 100.0}


async def test_hidden_reasoning_is_counted_and_billed_as_output(kind, server):
    answers = await ask(expert_settings(kind, server.url, f"m@think-{kind}", **PRICES), 3)
    assert [(a.output_tokens, a.thought_tokens) for a in answers] == [(10, 4)] * 3
    assert sum(a.dollars for a in answers) == pytest.approx((40 * 10 + 30 * 100) / 1e6)


async def test_each_request_is_admitted_with_the_most_it_can_cost_and_settled_with_what_it_did(kind, server):
    bounds = CountingBounds()
    settings = expert_settings(kind, server.url, f"m@admit-{kind}", max_tokens=500, picture_tokens=700, **PRICES)
    await ask(settings, 4, question(picture(), picture("blue"), "How many?", step=7), bounds)
    (permit,), (settled,) = bounds.admitted, bounds.settled.values()
    text = len("How many?" + "\n" + settings.instruction)
    assert permit.tokens == 2 * 700 + text + 32 + 4 * 500
    assert permit.dollars == pytest.approx(((2 * 700 + text + 32) * 10 + 4 * 500 * 100) / 1e6)
    assert settled == (80, pytest.approx((40 * 10 + 40 * 100) / 1e6), None)
    assert bounds.steps == [7]


@pytest.mark.parametrize(
    ("fault", "in_full", "failure"),
    [
        ("no-usage", True, None),
        ("absurd-usage", True, None),
        ("reset-in-body", True, Failure.UNREACHABLE),
        ("half-json", True, Failure.BAD_REPLY),
        ("drip", True, Failure.TIMED_OUT),
        ("408", True, Failure.SERVER_ERROR),
        ("503", False, Failure.SERVER_ERROR),
        ("429-long", False, Failure.RATE_LIMITED),
        ("401", False, Failure.UNAUTHORIZED),
    ],
)
async def test_what_may_have_been_billed_is_settled_in_full(kind, server, fault, in_full, failure):
    bounds = CountingBounds()
    limits = {"request_timeout_s": 0.3 if fault == "drip" else 10.0, "retry": RetrySettings(attempts=1)}
    settings = expert_settings(kind, server.url, f"{fault}@settle-{kind}", **limits, **PRICES)
    if failure is None:
        await ask(settings, 1, bounds=bounds)
    else:
        with pytest.raises(ExpertError):
            await ask(settings, 1, bounds=bounds)
    (permit,), ((tokens, dollars, error),) = bounds.admitted, bounds.settled.values()
    assert (tokens, dollars) == ((permit.tokens, permit.dollars) if in_full else (0, 0.0))
    assert (error and error.failure) is failure


async def test_a_blocked_prompt_is_billed_for_what_the_provider_read(server):
    bounds = CountingBounds()
    with pytest.raises(ExpertError):
        await ask(expert_settings("gemini", server.url, "filtered-prompt@billed", **PRICES), 2, bounds=bounds)
    ((tokens, dollars, error),) = bounds.settled.values()
    assert (tokens, dollars, error.failure) == (40, pytest.approx(40 * 10 / 1e6), Failure.BLOCKED)


async def test_a_refused_connection_costs_nothing(kind):
    bounds = CountingBounds()
    with pytest.raises(ExpertError):
        await ask(expert_settings(kind, "http://127.0.0.1:9", **PRICES), 1, bounds=bounds)
    assert [(tokens, error.failure) for tokens, _, error in bounds.settled.values()] == [(0, Failure.UNREACHABLE)] * 2


async def test_a_request_that_is_cut_off_is_settled_once_and_in_full(kind, server):
    bounds = CountingBounds()
    expert = client(expert_settings(kind, server.url, f"black-hole@cut-{kind}", **PRICES), bounds)
    asking = asyncio.ensure_future(expert.answer(question("a"), 2))
    while not server.hits[f"black-hole@cut-{kind}"]:
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await expert.close()
    (permit,), ((tokens, dollars, _),) = bounds.admitted, bounds.settled.values()
    assert (tokens, dollars) == (permit.tokens, permit.dollars)


@pytest.mark.parametrize("failure", [Failure.OVER_BUDGET, Failure.RESTING])
async def test_what_the_bounds_refuse_is_not_sent_and_not_tried_again(kind, server, failure):
    bounds = CountingBounds(refusal=ExpertError(failure, "no"))
    with pytest.raises(ExpertError) as caught:
        await ask(expert_settings(kind, server.url, f"m@refused-{kind}"), 2, bounds=bounds)
    assert caught.value.failure is failure
    assert server.hits[f"m@refused-{kind}"] == 0
