"""How to judge: every option of `compute_score`, checked once and refused with the reason when it cannot work."""

import difflib
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from ekipl_reward.errors import RewardError

VERL_ADDS = frozenset({"reward_router_address", "reward_model_tokenizer"})
"""Keyword arguments that verl's reward managers pass along; they are no options of ours."""


class OptionError(RewardError, ValueError):
    """An option is not known or has a value that is not."""


@dataclass(frozen=True)
class RewardOptions:
    """Set by `reward.custom_reward_function.reward_kwargs.*` in verl."""

    rules: str = "paper"
    """`paper`: the definitions in docs/rewards.md; `released`: Reason-RFT's shipped functions, exactly."""

    structure: str | None = None
    """Structure perception: `tolerance` (5 % / 20 % cosine) or `exact`. Default: tolerance for paper, exact for released."""

    spatial: str | None = None
    """Spatial transformation: `partial` credit, `full` matches only, or `penalty`. Default: partial for paper, full for released."""

    format_weight: float = 1.0
    accuracy_weight: float = 1.0

    length_weight: float = 0.0
    """Reward lost by an answer of `length_limit` characters or more, in proportion for shorter ones; 0 turns it off."""

    length_limit: int = 4000

    answer_in_tags: bool = True
    """paper rules: without answer tags there is no accuracy. False judges the whole text after the thinking instead."""

    def problems(self) -> list[str]:
        allowed = {
            "rules": ("paper", "released"),
            "structure": ("exact", "tolerance", None),
            "spatial": ("full", "partial", "penalty", None),
        }
        found = [
            f"{name}={getattr(self, name)!r} is not known. Choose from {', '.join(str(v) for v in values if v)}."
            for name, values in allowed.items()
            if getattr(self, name) not in values
        ]
        for name in ("format_weight", "accuracy_weight", "length_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
                found.append(f"{name}={value!r} must be a number from 0 on.")
        if not isinstance(self.length_limit, int) or self.length_limit < 1:
            found.append(f"length_limit={self.length_limit!r} must be 1 character or more.")
        if not isinstance(self.answer_in_tags, bool):
            found.append(f"answer_in_tags={self.answer_in_tags!r} must be true or false.")
        return found

    def resolved(self) -> "RewardOptions":
        """With the defaults that depend on `rules` filled in."""
        papers = self.rules == "paper"
        return replace(
            self,
            structure=self.structure or ("tolerance" if papers else "exact"),
            spatial=self.spatial or ("partial" if papers else "full"),
        )


@lru_cache(maxsize=64)
def _checked(items: tuple[tuple[str, Any], ...]) -> RewardOptions:
    known = {f.name for f in fields(RewardOptions)}
    problems = []
    for name, _ in items:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(
                f"{name} is no option. "
                + (f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}.")
            )
    if not problems:
        options = RewardOptions(**dict(items))
        problems = options.problems()
    if problems:
        raise OptionError("reward options: " + " ".join(problems))
    return options.resolved()


def read_options(**values: Any) -> RewardOptions:
    """The checked options; what verl adds on its own is passed over. Raises OptionError. Cached: it runs once an answer."""
    return _checked(tuple(sorted((k, v) for k, v in values.items() if k not in VERL_ADDS)))
