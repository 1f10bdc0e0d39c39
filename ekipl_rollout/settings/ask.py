"""`ekipl.ask`: for which rows experts are asked, and how long a group waits for them."""

from dataclasses import dataclass, field

WHEN = ("always", "unsolved", "fraction", "never")
SCHEDULES = ("constant", "linear", "cosine", "step")
LATE = ("drop", "keep_for_next")


@dataclass(frozen=True)
class FractionSettings:
    """A number from 0 to 1 that changes over training: the share of rows whose experts are asked (`when: fraction`), or the
    weight of a term of the loss (ekipl.learn.sft)."""

    schedule: str = "constant"
    """`constant`: always `start`; `linear`, `cosine`: from `start` in step 1 to `end` in step `steps`, and `end` after
    that; `step`: `start` in the first `steps` steps, then `end`."""

    start: float = 1.0
    end: float = 0.0

    steps: int | None = None
    """Length of the schedule in training steps."""

    def problems(self, at: str = "ekipl.ask.fraction") -> list[str]:
        found = []
        if self.schedule not in SCHEDULES:
            found.append(f"{at}.schedule={self.schedule!r} is not known. Choose from {', '.join(SCHEDULES)}.")
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            found.append(f"{at}: start={self.start} and end={self.end} are shares, from 0 to 1.")
        if self.schedule in SCHEDULES[1:] and (self.steps is None or self.steps < 1):
            found.append(f"{at}.steps={self.steps}: a {self.schedule} schedule needs its length, 1 or more steps.")
        return found


@dataclass(frozen=True)
class AskSettings:
    """When to ask, and when to go on without."""

    when: str = "always"
    """`always` (the paper); `unsolved`: where the policy's own answers leave something to learn from others (all of them
    fail, or all get the same reward and not all are right); `fraction`: a share of the rows; `never`. `unsolved` must
    judge the policy's answers first, so that nothing of the asking hides behind the rollout."""

    fraction: FractionSettings = field(default_factory=FractionSettings)

    tasks: dict[str, str] = field(default_factory=dict)
    """`when` by data source, for those that differ: {clevr_math: never, geomath: unsolved}."""

    wait_s: float | None = None
    """Seconds that a group waits for experts after its policy answers are there and judged. null: as long as
    ekipl.expert_timeout_s, which counts from the asking."""

    late: str = "drop"
    """What becomes of a request that the group no longer waits for. `drop`: one that is out runs to its end, its answer
    is recorded, and nothing more goes out for this row (no retry, nothing that was still queueing);
    `keep_for_next`: it goes on as if nothing had happened, so that the row has its answers when it comes round."""

    late_s: float = 60.0
    """Seconds that it may take beyond ekipl.expert_timeout_s before it is cut off."""

    max_late: int = 64
    """Late requests of one worker at the same time; one more is cut off at once."""

    ahead: bool = False
    """Ask for the rows of the next batch while this one trains. They queue behind the current step's."""

    def problems(self) -> list[str]:
        found = self.fraction.problems() if "fraction" in (self.when, *self.tasks.values()) else []
        if self.when not in WHEN:
            found.append(f"ekipl.ask.when={self.when!r} is not known. Choose from {', '.join(WHEN)}.")
        for task, when in self.tasks.items():
            if when not in WHEN:
                found.append(f"ekipl.ask.tasks.{task}={when!r} is not known. Choose from {', '.join(WHEN)}.")
        if self.late not in LATE:
            found.append(f"ekipl.ask.late={self.late!r} is not known. Choose from {', '.join(LATE)}.")
        if self.wait_s is not None and self.wait_s < 0:
            found.append(f"ekipl.ask.wait_s={self.wait_s} must be 0 or more seconds; null waits for expert_timeout_s.")
        if self.late_s < 0 or self.max_late < 0:
            found.append(f"ekipl.ask: late_s={self.late_s} and max_late={self.max_late} must be 0 or more.")
        if self.ahead and self.when == "unsolved":
            found.append(
                "ekipl.ask.ahead=true cannot work with when=unsolved: whether a row of the next batch is asked depends on "
                "answers that the policy has not given. Set ahead=false."
            )
        return found
