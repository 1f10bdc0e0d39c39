"""`ekipl.bounds`: how fast experts are asked, and for how much money at most."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BoundsSettings:
    """What all workers of a run share, on all nodes. Rates and money of one expert are settings of that expert."""

    max_dollars: float | None = None
    """The most that the run may cost, all its attempts together; null is no limit. The run is the run folder: what an
    attempt that was killed has spent stays spent when the same command goes on."""

    max_dollars_per_step: float | None = None
    """The most that one training step may cost; null is no limit. A step that is done again after a kill goes on with
    what it had left."""

    burst_s: float = 6.0
    """Requests of so many seconds may go out at once; 60 lets a whole minute's go in the first second. Over any minute
    the limit of the minute holds, whatever this is."""

    failures_to_rest: int = 5
    """Failures in a row (unreachable, timed out, 5xx, unreadable) after which an expert rests. Requests that were under
    way together count as one. A wrong key, model or address, or an empty account, needs no second one."""

    rest_s: float = 30.0
    """Seconds of the first rest; then one request probes, and each probe that fails doubles the rest."""

    longest_rest_s: float = 600.0

    ledger: str | None = None
    """File that money is written down in before it is spent; null is `ledger.sqlite` in the run's folder."""

    def problems(self) -> list[str]:
        found = []
        for name in ("max_dollars", "max_dollars_per_step"):
            value = getattr(self, name)
            if value is not None and value < 0:
                found.append(f"ekipl.bounds.{name}={value} must be 0 or more dollars; null is no limit.")
        if not 0 < self.burst_s <= 60:
            found.append(f"ekipl.bounds.burst_s={self.burst_s} must be more than 0 and at most 60 seconds.")
        if self.failures_to_rest < 1:
            found.append(f"ekipl.bounds.failures_to_rest={self.failures_to_rest} must be 1 or more.")
        if not 0 < self.rest_s <= self.longest_rest_s:
            found.append(
                f"ekipl.bounds.rest_s={self.rest_s} must be more than 0 and at most longest_rest_s={self.longest_rest_s}."
            )
        return found
