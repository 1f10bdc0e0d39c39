"""What the governor lets out costs no more than it may, is written down before it goes, and outlives a kill."""

import asyncio
import random
import time

import pytest

from ekipl_rollout.bounds.governor import Governor, open_governor
from ekipl_rollout.bounds.ledger import Ledger, LedgerError
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import BoundsSettings, EkiplSettings
from tests.rollout.governor_helpers import ask, expert, governor, refused, waits


async def test_money_that_is_gone_refuses_at_once_and_money_that_is_out_is_waited_for():
    bounds = governor(max_dollars=1.0)
    permit = await bounds.admit("gpt", tokens=1, dollars=0.8)
    await refused(bounds, Failure.OVER_BUDGET, dollars=1.1)
    second = ask(bounds, dollars=0.8)
    assert await waits(second)
    await bounds.settle(permit, dollars=0.1)
    await bounds.settle(await second, dollars=0.5)
    assert "more than is left" in await refused(bounds, Failure.OVER_BUDGET, dollars=0.41)


async def test_who_waits_for_money_is_refused_when_it_turns_out_to_be_gone():
    bounds = governor(max_dollars=1.0)
    permit = await bounds.admit("gpt", tokens=1, dollars=0.8)
    second = ask(bounds, dollars=0.8)
    await asyncio.sleep(0)
    await bounds.settle(permit, dollars=0.8)
    with pytest.raises(ExpertError, match="more than is left"):
        await second


async def test_money_that_one_expert_gives_back_lets_another_go():
    bounds = governor(expert("a"), expert("b"), max_dollars=1.0)
    permit = await bounds.admit("a", tokens=1, dollars=0.9)
    other = ask(bounds, "b", dollars=0.5)
    assert await waits(other)
    await bounds.settle(permit, dollars=0.1)
    await asyncio.wait_for(other, 1)


async def test_a_budget_for_each_step_and_for_each_expert():
    bounds = governor(expert(max_dollars=0.5), expert("b"), max_dollars_per_step=0.3)
    await bounds.settle(await bounds.admit("gpt", tokens=1, dollars=0.3, step=1), dollars=0.3)
    await refused(bounds, Failure.OVER_BUDGET, dollars=0.01, step=1)
    await bounds.settle(await bounds.admit("gpt", tokens=1, dollars=0.2, step=2), dollars=0.2)
    await refused(bounds, Failure.OVER_BUDGET, dollars=0.01, step=3)
    await bounds.admit("b", tokens=1, dollars=0.3, step=3)


async def test_a_free_server_is_asked_whatever_the_budget():
    bounds = governor(max_dollars=0.0)
    await bounds.admit("gpt", tokens=1, dollars=0.0)
    await refused(bounds, Failure.OVER_BUDGET, dollars=1e-9)


async def test_a_bill_beyond_the_reservation_is_charged_and_raises_the_next_ones():
    bounds = governor(max_dollars=1.0)
    permit = await bounds.admit("gpt", tokens=1, dollars=0.1)
    await bounds.settle(permit, dollars=0.15)
    assert bounds.snapshot()["spent"] == 0.15
    assert (await bounds.admit("gpt", tokens=1, dollars=0.1)).dollars == pytest.approx(0.15)


async def test_bills_beyond_reservations_that_were_made_together_raise_the_next_ones_once():
    bounds = governor(max_dollars=10.0)
    permits = [await bounds.admit("gpt", tokens=1, dollars=0.1) for _ in range(5)]
    for permit in permits:
        await bounds.settle(permit, dollars=0.15)
    assert (await bounds.admit("gpt", tokens=1, dollars=0.1)).dollars == pytest.approx(0.15)


async def test_a_permit_is_settled_once():
    bounds = governor()
    permit = await bounds.admit("gpt", tokens=1, dollars=0.5)
    for _ in range(3):
        await bounds.settle(permit, dollars=0.5)
    assert bounds.snapshot()["spent"] == 0.5
    assert bounds.snapshot()["experts"]["gpt"]["in_flight"] == 0


async def test_money_is_on_the_disk_before_a_permit_is_given(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    written = []

    class Watched:
        spent, close = ledger.spent, ledger.close

        def write(self, entries):
            time.sleep(0.05)
            ledger.write(entries)
            written.append(len(entries))

    bounds = Governor(BoundsSettings(), (expert(max_in_flight=100),), Watched())
    await asyncio.gather(*(bounds.admit("gpt", tokens=1, dollars=0.1) for _ in range(64)))
    assert sum(written) == 64
    assert len(written) <= 3  # one write for all that came up together
    await bounds.close()


async def test_what_an_earlier_attempt_spent_counts_also_what_was_out_when_it_was_killed(tmp_path):
    path = tmp_path / "ledger.sqlite"
    first = governor(ledger=Ledger(path), max_dollars=1.0)
    await first.settle(await first.admit("gpt", tokens=1, dollars=0.5, step=7), dollars=0.4)
    await first.admit("gpt", tokens=1, dollars=0.3, step=7)  # never settled
    await first.close()
    second = governor(ledger=Ledger(path), max_dollars=1.0)
    assert second.snapshot(step=7)["step_spent"] == pytest.approx(0.7)
    await refused(second, Failure.OVER_BUDGET, dollars=0.31)
    await second.admit("gpt", tokens=1, dollars=0.3)
    await second.close()


async def test_a_permit_of_an_earlier_attempt_settles_nothing_in_this_one(tmp_path):
    path = tmp_path / "ledger.sqlite"
    first = governor(ledger=Ledger(path), max_dollars=1.0)
    old = await first.admit("gpt", tokens=1, dollars=0.5)
    await first.close()
    second = governor(ledger=Ledger(path), max_dollars=1.0)
    await second.admit("gpt", tokens=1, dollars=0.1)
    await second.settle(old, dollars=0.0)
    assert second.snapshot()["spent"] == 0.5
    await second.close()


async def test_without_a_ledger_on_the_disk_nothing_goes_out(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    bounds = governor(ledger=ledger, max_dollars=1.0)
    ledger.write = lambda entries: (_ for _ in ()).throw(LedgerError("disk full"))
    assert "disk full" in await refused(bounds, Failure.OVER_BUDGET, dollars=0.1)
    await asyncio.sleep(0.05)
    seen = bounds.snapshot()
    assert (seen["reserved"], seen["spent"], seen["experts"]["gpt"]["in_flight"]) == (0, 0, 0)


async def test_the_bounds_of_a_run_keep_their_ledger_in_its_folder(tmp_path):
    settings = EkiplSettings(experts=(expert(),), run_dir=str(tmp_path))
    bounds = open_governor(settings)
    await bounds.settle(await bounds.admit("gpt", tokens=1, dollars=0.5), dollars=0.5)
    await bounds.close()
    again = open_governor(settings)
    assert again.snapshot()["spent"] == 0.5
    await again.close()


class Truth:
    """What random tasks really have out, counted beside the governor: dollars by account, requests by expert."""

    def __init__(self):
        self.at_risk = {"run": 0.0, "gpt": 0.0, 1: 0.0, 2: 0.0, 3: 0.0}
        self.worst = dict(self.at_risk)
        self.flying = {"gpt": 0, "gemini": 0}

    def move(self, name, step, dollars):
        for key in ("run", name, step):
            if key in self.at_risk:
                self.at_risk[key] += dollars
                self.worst[key] = max(self.worst[key], self.at_risk[key])


async def one_task(bounds, truth, rng):
    """Asks, and answers, fails or vanishes as chance has it; whoever cancels it sees a request that timed out."""
    name, step, dollars = rng.choice(["gpt", "gemini"]), rng.choice([1, 2, 3]), rng.uniform(0.005, 0.05)
    await asyncio.sleep(rng.uniform(0, 0.1))
    try:
        permit = await bounds.admit(name, tokens=10, dollars=dollars, step=step)
    except ExpertError:
        return
    truth.flying[name] += 1
    truth.move(name, step, dollars)
    assert truth.flying[name] <= (7 if name == "gpt" else 3)
    end = rng.random()
    try:
        await asyncio.sleep(rng.uniform(0, 0.02))
    except asyncio.CancelledError:
        end = 0.99
    truth.flying[name] -= 1
    if end < 0.1:
        bounds.forfeit(permit.id)
    elif end > 0.9:
        await bounds.settle(permit, dollars=dollars, tokens=10, error=ExpertError(Failure.TIMED_OUT, "?"))
    else:
        cost = rng.uniform(0, dollars)
        truth.move(name, step, cost - dollars)
        await bounds.settle(permit, tokens=5, dollars=cost)


@pytest.mark.parametrize("seed", range(6))
async def test_no_interleaving_of_many_tasks_exceeds_budget_or_flight(seed, tmp_path):
    """Tasks that ask, answer, fail, are cancelled and vanish at random."""
    rng = random.Random(seed)
    limits = {"run": 2.0, "step": 0.9, "gpt": 1.2}
    bounds = governor(
        expert(max_in_flight=7, max_dollars=limits["gpt"]),
        expert("gemini", max_in_flight=3),
        ledger=Ledger(tmp_path / "ledger.sqlite") if seed % 2 else None,
        max_dollars=limits["run"],
        max_dollars_per_step=limits["step"],
    )
    truth = Truth()
    tasks = [asyncio.create_task(one_task(bounds, truth, rng)) for _ in range(250)]
    for _ in range(40):
        await asyncio.sleep(0.005)
        rng.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    errors = [t.exception() for t in tasks if not t.cancelled() and t.exception()]
    assert not errors
    assert truth.worst["run"] <= limits["run"] + 1e-6
    assert truth.worst["gpt"] <= limits["gpt"] + 1e-6
    assert max(truth.worst[step] for step in (1, 2, 3)) <= limits["step"] + 1e-6
    seen = bounds.snapshot()
    assert seen["spent"] == pytest.approx(truth.at_risk["run"], abs=1e-6)
    assert seen["reserved"] == 0
    assert [lane["in_flight"] for lane in seen["experts"].values()] == [0, 0]
    await bounds.close()
