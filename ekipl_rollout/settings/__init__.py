"""The `ekipl:` block: every setting, what it does, and what cannot work. Nothing here needs verl or a network.

One file for each part of the block. `EkiplSettings.from_config(config.ekipl)` reports all problems at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings.advantage import AdvantageSettings
from ekipl_rollout.settings.ask import AskSettings, FractionSettings
from ekipl_rollout.settings.bounds import BoundsSettings
from ekipl_rollout.settings.expert import ExampleSettings, ExpertSettings, RetrySettings
from ekipl_rollout.settings.learn import LearnSettings
from ekipl_rollout.settings.read import read_block
from ekipl_rollout.settings.record import RecordSettings
from ekipl_rollout.settings.select import SelectSettings
from ekipl_rollout.settings.weights import WeightSettings


@dataclass(frozen=True)
class EkiplSettings:
    """The whole block."""

    num_answers: int = 8
    """N: answers of the policy, and of each expert, to one question. G is verl's rollout.n."""

    experts: tuple[ExpertSettings, ...] = ()
    """M experts; none is plain GRPO through the same path."""

    expert_timeout_s: float = 60.0
    """Seconds from the asking that a group gives an expert; then it goes on without. ekipl.ask.wait_s can make it less."""

    too_long: str = "drop"
    """Expert answers of more than rollout.response_length tokens: `drop` or `cut`."""

    select: SelectSettings = field(default_factory=SelectSettings)
    advantage: AdvantageSettings = field(default_factory=AdvantageSettings)
    weights: WeightSettings = field(default_factory=WeightSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    ask: AskSettings = field(default_factory=AskSettings)
    bounds: BoundsSettings = field(default_factory=BoundsSettings)
    record: RecordSettings = field(default_factory=RecordSettings)

    reward: Mapping[str, Any] = field(default_factory=dict)
    """How answers are judged. Not read here: these are the options of ekipl_reward, which checks them."""

    run_dir: str | None = None
    """Folder of this run: groups, metrics, report. null writes no group files."""

    keep_groups: bool = True
    """Write every group's answers to run_dir/groups, compressed."""

    seed: int = 0
    """Of random ties, and of the policy's answers when they are seeded."""

    seeded_policy: bool = False
    """Sample each policy answer with a seed of its own (seed, step, row, session), so that a run can be repeated. vLLM
    samples seeded requests one by one, which costs throughput on a GPU."""

    def problems(self) -> list[str]:
        found = []
        if self.num_answers < 1:
            found.append(
                f"ekipl.num_answers={self.num_answers} must be 1 or more: it is N, the answers each source gives."
            )
        if self.expert_timeout_s <= 0:
            found.append(f"ekipl.expert_timeout_s={self.expert_timeout_s} must be more than 0 seconds.")
        if self.too_long not in ("drop", "cut"):
            found.append(f"ekipl.too_long={self.too_long!r} is not known. Choose from drop, cut.")
        names = [expert.name for expert in self.experts]
        found += [
            f"ekipl.experts: the name {name!r} is used twice." for name in sorted(set(names)) if names.count(name) > 1
        ]
        if self.record.mode == "off":
            found += [
                f"ekipl.experts[{e.name}].kind=offline answers from the record, and ekipl.record.mode=off keeps none. Set it to record or replay."
                for e in self.experts
                if e.kind == "offline"
            ]
        own = (self.select, self.advantage, self.weights, self.learn, self.ask, self.bounds, self.record)
        parts: tuple[Any, ...] = (*self.experts, *own)
        for part in parts:
            found += part.problems()
        found += self._replay_problems()
        if self.ask.late == "keep_for_next" and self.record.mode == "off":
            found.append(
                "ekipl.ask.late=keep_for_next needs a place to keep answers, but ekipl.record.mode=off. Set record.mode=record."
            )
        found += self.weights.expert_problems(self.experts, self.too_long)
        return found + list(self._money_problems())

    def _replay_problems(self) -> Iterator[str]:
        if self.record.mode == "replay" and self.record.path and not self.record.problems():
            from ekipl_rollout.record.coverage import replay_problem  # that package imports the settings itself

            if problem := replay_problem(Path(self.record.path), self.experts):
                yield problem

    def _money_problems(self) -> Iterator[str]:
        limits = (self.bounds.max_dollars, self.bounds.max_dollars_per_step, *(e.max_dollars for e in self.experts))
        if all(limit is None for limit in limits):
            return
        for expert in self.experts:
            if expert.price is None:
                yield (
                    f"ekipl.experts[{expert.name}] has no price, so that no budget could hold for it. Set "
                    "dollars_per_million_input and dollars_per_million_output, or take the limits in dollars away."
                )

    def answers_of(self, expert: ExpertSettings) -> int:
        """N of this expert."""
        return self.num_answers if expert.num_answers is None else expert.num_answers

    @property
    def num_candidates(self) -> int:
        """Answers of a row whose experts are all asked: N(1+M) where every source gives N."""
        return self.num_answers + sum(self.answers_of(expert) for expert in self.experts)

    @classmethod
    def from_config(cls, config: Any, check: bool = True) -> "EkiplSettings":
        """Reads the block (an OmegaConf node or a dict). Raises SettingsError with all its problems at once."""
        problems: list[str] = []
        settings = read_block(cls, config or {}, "ekipl", problems)
        if settings is not None:
            settings = replace(settings, experts=tuple(expert.with_listed_price() for expert in settings.experts))
        if check and settings is not None:
            problems += settings.problems()
        if problems or settings is None:
            raise SettingsError(*problems)
        return settings


__all__ = [
    "AdvantageSettings",
    "AskSettings",
    "BoundsSettings",
    "EkiplSettings",
    "ExampleSettings",
    "ExpertSettings",
    "FractionSettings",
    "LearnSettings",
    "RecordSettings",
    "RetrySettings",
    "SelectSettings",
    "WeightSettings",
]
