"""What the bounds cost: requests a second through them, and what that does to an event loop that has other work.

    python -m recipe.ekipl.measure.bounds_speed [--requests 2000] [--workers 4] [--without-ray]

Each request is admitted, takes no time, and is settled; 64 are under way at any time. Compared in one run, one after the
other:

    none          no bounds at all
    in process    a governor in the same loop: rates, flight, breaker, budget in memory
    with ledger   likewise, with every reservation on the disk before its permit is given
    actor         one worker and the named Ray actor, ledger included
    actor xN      N workers at once and the same actor

and for the actor: how long one permit takes when nothing else is under way, and how late a timer of the worker's loop comes
(10 ms, median and p99) while it asks at its fastest, and while it asks 20 times a second. Numbers of one machine say little; ratios in one run say more.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ekipl_rollout.bounds import Bounds, Unbounded
from ekipl_rollout.bounds.governor import Governor
from ekipl_rollout.bounds.ledger import Ledger
from ekipl_rollout.settings import BoundsSettings, EkiplSettings, ExpertSettings

EXPERT = ExpertSettings("expert", "openai", "m", "http://127.0.0.1:1/v1", max_in_flight=64)
TICK_S = 0.01


async def ask_all(bounds: Bounds, requests: int, at_once: int = 64) -> float:
    """Seconds for `requests` requests, `at_once` of them waiting at any time."""
    left = iter(range(requests))

    async def one_after_the_other() -> None:
        for _ in left:
            permit = await bounds.admit("expert", tokens=100, dollars=1e-6, step=1)
            await bounds.settle(permit, tokens=50, dollars=5e-7)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return time.perf_counter() - started


async def lateness(work: Callable[[], Any]) -> dict[str, float]:
    """How late, in ms, timers of this loop come while `work` runs."""
    late: list[float] = []
    task = asyncio.ensure_future(work())
    while not task.done():
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late.append((time.perf_counter() - due) * 1000)
    await task
    return {
        "median_ms": round(statistics.median(late), 2),
        "p99_ms": round(sorted(late)[int(0.99 * (len(late) - 1))], 2),
    }


async def slowly(bounds: Bounds, seconds: float) -> None:
    """20 requests a second, which is what a thousand a minute come to."""
    for _ in range(int(seconds * 20)):
        permit = await bounds.admit("expert", tokens=100, dollars=1e-6, step=1)
        await bounds.settle(permit, tokens=50, dollars=5e-7)
        await asyncio.sleep(0.05)


async def in_one_process(requests: int, folder: Path) -> dict[str, Any]:
    async def rate(bounds: Bounds) -> float:
        return round(requests / await ask_all(bounds, requests))

    ledger = Governor(BoundsSettings(), [EXPERT], Ledger(folder / "measured.sqlite"))
    found = {
        "none": await rate(Unbounded()),
        "in process": await rate(Governor(BoundsSettings(), [EXPERT])),
        "with ledger": await rate(ledger),
    }
    await ledger.close()
    return found


class Worker:
    """Asks as a rollout worker does; an actor of Ray's."""

    def __init__(self, settings: EkiplSettings):
        from ekipl_rollout.on_verl.shared_bounds import connect_bounds

        self.bounds = connect_bounds(settings)

    async def ask(self, count: int) -> float:
        return await ask_all(self.bounds, count)

    async def alone(self, count: int) -> float:
        return 1000 * await ask_all(self.bounds, count, at_once=1) / count

    async def late(self, seconds: float) -> dict[str, float]:
        return await lateness(lambda: asyncio.sleep(seconds))

    async def late_asking(self, count: int) -> dict[str, float]:
        return await lateness(lambda: ask_all(self.bounds, count))

    async def late_slowly(self, seconds: float) -> dict[str, float]:
        return await lateness(lambda: slowly(self.bounds, seconds))


def through_the_actor(requests: int, workers: int, folder: Path) -> dict[str, Any]:
    import ray

    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    ray.init(num_cpus=workers + 1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        settings = EkiplSettings(experts=(EXPERT,), run_dir=str(folder), bounds=BoundsSettings(max_dollars=1e9))
        actor = start_bounds(settings)
        actors = ray.remote(num_cpus=0)(Worker)
        asking = [actors.remote(settings) for _ in range(workers)]
        ray.get([worker.ask.remote(10) for worker in asking])
        alone = ray.get(asking[0].ask.remote(requests))
        started = time.perf_counter()
        ray.get([worker.ask.remote(requests // workers) for worker in asking])
        together = time.perf_counter() - started
        return {
            "actor": round(requests / alone),
            f"actor x{workers}": round(requests // workers * workers / together),
            "one_permit_ms": round(ray.get(asking[0].alone.remote(200)), 2),
            "late_idle": ray.get(asking[0].late.remote(2.0)),
            "late_20_a_second": ray.get(asking[0].late_slowly.remote(2.0)),
            "late_at_full_speed": ray.get(asking[0].late_asking.remote(requests)),
            "left_in_flight": ray.get(actor.snapshot.remote())["experts"]["expert"]["in_flight"],
        }
    finally:
        ray.shutdown()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests of each measurement (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=4, help="workers that ask at once (default: %(default)s)")
    parser.add_argument("--without-ray", action="store_true", help="measure only what one process does")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(in_one_process(args.requests, Path(name)))
        if not args.without_ray:
            found |= through_the_actor(args.requests, args.workers, Path(name))
    rates = {
        key: found[key] for key in found if key in ("none", "in process", "with ledger") or key.startswith("actor")
    }
    for key, value in rates.items():
        print(f"  {key:<12} {value:>9} requests/s   {value / rates['in process']:7.3f} of in process")
    if "one_permit_ms" in found:
        print(f"  one permit through the actor and back takes {found['one_permit_ms']} ms")
    for key in ("late_idle", "late_20_a_second", "late_at_full_speed"):
        if key in found:
            print(
                f"  {key:<19} a timer comes {found[key]['median_ms']} ms late (median), {found[key]['p99_ms']} ms (p99)"
            )
    print(json.dumps({"requests": args.requests, "load": os.getloadavg()[0], **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
