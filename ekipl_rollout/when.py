"""When to ask: for which rows experts are asked at all. The same seed, step and row always decide alike.

    always      every row (the paper)
    unsolved    rows where the policy's own answers leave something to learn; known only after the policy
    fraction    a share of the rows, by a schedule over the training steps
    never       no row

`ekipl.ask.tasks` sets it by data source.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ekipl_rollout.answer import Candidate, Question
from ekipl_rollout.keep.spread import is_silent
from ekipl_rollout.settings import EkiplSettings, FractionSettings


@dataclass(frozen=True)
class Row:
    """What a decision may depend on."""

    data_source: str
    step: int

    key: str
    """What tells the row from others."""

    @classmethod
    def of(cls, question: Question, data_source: str) -> "Row":
        """The row that a question comes from, told from others by what it asks and shows."""
        digest = hashlib.blake2b(digest_size=16)
        for turn in question.messages:
            for part in turn.parts:
                content = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
                digest.update(b"%d:" % len(content) + content)
        return cls(data_source, question.step or 0, digest.hexdigest())


class When:
    """The decision for each row of a run."""

    def __init__(self, settings: EkiplSettings):
        self._ask, self._seed = settings.ask, settings.seed

    def rule(self, data_source: str) -> str:
        return self._ask.tasks.get(data_source, self._ask.when)

    def before(self, row: Row) -> bool | None:
        """Are experts asked beside the policy? None: the policy's answers decide, see `is_unsolved`."""
        rule = self.rule(row.data_source)
        if rule == "unsolved":
            return None
        if rule == "fraction":
            return draw(self._seed, row) < share(self._ask.fraction, row.step)
        return rule == "always"

    def expected_share(self, data_source: str, step: int) -> float:
        """Share of such rows that are asked in `step`; for `unsolved` the most that can be: 1."""
        rule = self.rule(data_source)
        return {"never": 0.0, "fraction": share(self._ask.fraction, step)}.get(rule, 1.0)


def is_unsolved(policy: Sequence[Candidate]) -> bool:
    """True when the policy's own answers all fail, or have no spread without all being right: nothing to learn from
    among themselves. A group that is right throughout is solved, and no expert could improve it.

    Example:
        accuracies [0, 0, 0] -> True;  [0, 1, 0] -> False;  [1, 1, 1] -> False;  rewards all 1.4, none right -> True
    """
    if not policy:
        return False  # all of the policy's sessions failed: there is no group
    right = [c.is_right for c in policy]
    return not any(right) or (is_silent([c.score for c in policy]) and not all(right))


def share(fraction: FractionSettings, step: int) -> float:
    """The number of a schedule at training step `step` (1, 2, ...): for `ekipl.ask`, the share of rows whose experts are
    asked.

    Example:
        linear, start=1, end=0, steps=101 -> step 1: 1.0, step 51: 0.5, step 101 and later: 0.0
    """
    if fraction.schedule == "constant" or fraction.steps is None:
        return fraction.start
    if fraction.schedule == "step":
        return fraction.start if step <= fraction.steps else fraction.end
    done = min(max((step - 1) / max(fraction.steps - 1, 1), 0.0), 1.0)
    if fraction.schedule == "cosine":
        done = (1.0 - math.cos(math.pi * done)) / 2.0
    return fraction.start + (fraction.end - fraction.start) * done


def draw(seed: int, row: Row) -> float:
    """A number in [0, 1) that depends on seed, step and row and on nothing else."""
    # a real hash: with a CRC the draws of one row in two steps differ by a constant
    text = repr((seed, row.step, row.data_source, row.key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48
