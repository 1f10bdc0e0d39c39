"""How to judge: every option of `compute_score`, checked once and refused with the reason when it cannot work."""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from ekipl_reward.errors import OptionError

VERL_ADDS = frozenset({"reward_router_address", "reward_model_tokenizer"})
"""Keyword arguments that verl's reward managers pass along; they are no options of ours."""

CHOICES: dict[str, tuple[str, ...]] = {
    "rules": ("paper", "released"),
    "structure": ("exact", "tolerance"),
    "spatial": ("full", "partial", "penalty"),
}


@dataclass(frozen=True)
class RewardOptions:
    """Set by `ekipl.reward.*` or, the same, `reward.custom_reward_function.reward_kwargs.*`."""

    rules: str = "paper"
    """`paper`: the definitions in docs/rewards.md; `released`: Reason-RFT's shipped functions, exactly."""

    structure: str | None = None
    """Structure perception: `tolerance` (5 % / 20 % cosine) or `exact`. null: tolerance for paper, exact for released."""

    spatial: str | None = None
    """Spatial transformation: `partial` credit, `full` matches only, or `penalty`. null: partial for paper, full for
    released."""

    format_weight: float = 1.0
    accuracy_weight: float = 1.0

    length_weight: float = 0.0
    """Reward lost by a response of `length_limit` characters or more, in proportion for shorter ones; 0 turns it off."""

    length_limit: int = 4000

    answer_in_tags: bool = True
    """paper rules: without answer tags there is no accuracy. False judges the whole text after the thinking instead."""

    task_modules: tuple[str, ...] = ()
    """Modules of yours to import, by dotted name, because they register tasks. Imported in every reward process."""

    def problems(self) -> list[str]:
        found = [
            f"{name}={getattr(self, name)!r} is not known. Choose from {', '.join(values)}."
            for name, values in CHOICES.items()
            if getattr(self, name) not in (values if name == "rules" else (*values, None))
        ]
        for name in ("format_weight", "accuracy_weight", "length_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e6:
                found.append(f"{name}={value!r} must be a number from 0 to 1,000,000.")
        if self.format_weight == 0 == self.accuracy_weight:
            found.append("format_weight=0 and accuracy_weight=0 reward every answer alike. Raise one of them.")
        if isinstance(self.length_limit, bool) or not isinstance(self.length_limit, int) or self.length_limit < 1:
            found.append(f"length_limit={self.length_limit!r} must be 1 character or more.")
        if not isinstance(self.answer_in_tags, bool):
            found.append(f"answer_in_tags={self.answer_in_tags!r} must be true or false.")
        return found + self._module_problems()

    def _module_problems(self) -> list[str]:
        if not isinstance(self.task_modules, tuple) or not all(isinstance(m, str) for m in self.task_modules):
            return [f"task_modules={self.task_modules!r} must be a list of dotted names such as [my_lab.rewards]."]
        found = []
        for name in self.task_modules:
            try:
                importlib.import_module(name)
            except Exception as error:  # whatever their module raises, the user should read it at start-up
                found.append(
                    f"task_modules: {name} cannot be imported: {type(error).__name__}: {error}. "
                    "It must be importable in every process: install it, or put its folder on PYTHONPATH."
                )
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


_DEFAULT = _checked(())


def read_options(**values: Any) -> RewardOptions:
    """The checked options; what verl adds on its own is passed over. Raises OptionError. Cached: it runs once an answer."""
    if not values:
        return _DEFAULT
    return _checked(tuple(sorted((k, _plain(v)) for k, v in values.items() if k not in VERL_ADDS)))


def _plain(value: Any) -> Any:
    """Lists (also OmegaConf's, which are no lists) as tuples, so that they can be compared and cached."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(value)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
