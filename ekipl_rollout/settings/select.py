"""`ekipl.select`: which candidates are kept (keep/, docs/selection_and_weights.md)."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ekipl_rollout.answer import POLICY, Candidate
from ekipl_rollout.keep.rules import RULES, Rule
from ekipl_rollout.keep.ties import TIES

MADE_UP = (POLICY, "expert1", "expert2") * 4
"""Sources of a group on which a rule of somebody's own is tried before a run."""

NEGATIVE_EXPERTS = ("keep", "zero", "drop")


@dataclass(frozen=True)
class SelectSettings:
    """Which of a group's candidates are kept."""

    rule: str = "top_g"
    """A name of keep/rules.py, or the dotted name of a function of yours. `top_g` is the paper's."""

    ties: str = "policy_first"
    """Order among equal rewards: policy_first, expert_first, random, round_robin or shortest. Decides most selections."""

    num_experts: int | None = None
    """Expert answers in a group, for the rules that count them; null is half of G."""

    max_per_expert: int | None = None
    """Answers of one expert that may enter the selection, its best ones; null is no limit."""

    min_policy: int = 0
    """Answers of the policy in every group, as far as there are so many: the worst expert answers give way."""

    correct_experts_only: bool = False
    """Expert answers that are not right never enter."""

    negative_experts: str = "keep"
    """Kept expert answers whose advantage is negative: `keep`, `zero` (the row stays, its advantage is 0) or `drop` (zero
    where fewer than two answers would be left)."""

    def problems(self) -> list[str]:
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        at = "ekipl.select"
        if self.ties not in TIES:
            yield f"{at}.ties={self.ties!r} is not known. Choose from {', '.join(TIES)}."
        if self.negative_experts not in NEGATIVE_EXPERTS:
            yield f"{at}.negative_experts={self.negative_experts!r} is not known. Choose from {', '.join(NEGATIVE_EXPERTS)}."
        for name in ("num_experts", "max_per_expert"):
            if (value := getattr(self, name)) is not None and value < 0:
                yield f"{at}.{name}={value} must be 0 or more answers; null is the rule's own number."
        if self.min_policy < 0:
            yield f"{at}.min_policy={self.min_policy} must be 0 or more answers."
        try:
            own = find_rule(self.rule) if self.rule not in RULES else None
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            yield (
                f"{at}.rule={self.rule!r} is not known ({error}). Choose from {', '.join(RULES)}, or give the dotted "
                "name of a function (ranked, num_kept, num_experts) -> kept that can be imported here."
            )
            return
        if own is not None:
            try:
                self.apply_rule([Candidate(source, i, 2.0 * (i < 6)) for i, source in enumerate(MADE_UP)], 4)
            except Exception as error:  # whatever a rule of somebody's own raises
                yield f"{at}.rule={self.rule} fails on a made-up group of {len(MADE_UP)} answers, of which 4 are to be kept: {type(error).__name__}: {error}"

    def apply_rule(self, ranked: list[Candidate], num_kept: int) -> list[Candidate]:
        """What the rule keeps. A rule of somebody's own is held to what a rule may do."""
        num_experts = num_kept // 2 if self.num_experts is None else self.num_experts
        kept = find_rule(self.rule)(ranked, num_kept, num_experts)
        if self.rule not in RULES:
            known = {id(c) for c in ranked}
            if len(kept) > num_kept or len({id(c) for c in kept} & known) != len(kept):
                raise ValueError(
                    f"ekipl.select.rule={self.rule} returned {len(kept)} answers of {len(ranked)} for G={num_kept}: a rule "
                    "keeps G at most, each once, and only those that it was given."
                )
        return list(kept)


@lru_cache(maxsize=8)
def find_rule(name: str) -> Rule:
    """A rule by its name. Raises ImportError, AttributeError, TypeError or ValueError when there is none."""
    if name in RULES:
        return RULES[name]
    module, _, function = name.rpartition(".")
    if not module:
        raise ValueError("no rule of this name")
    found = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise TypeError("it is not a function")
    return found
