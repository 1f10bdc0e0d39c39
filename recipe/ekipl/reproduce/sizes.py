"""How large the study is."""

from collections.abc import Mapping
from dataclasses import dataclass

ALL_TASKS = ("visual_counting", "structure_perception", "spatial_transformation")
EARLY = (0.125, 0.25)
"""Shares of the training rows at which the paper compares methods in Figure 3 (it says 12 % and 25 %)."""


@dataclass(frozen=True)
class Regime:
    """What the policy can do before, and how good its experts are."""

    name: str
    tasks: tuple[str, ...]
    skills: tuple[float, float]
    """Share of the answers of each demo expert that are right."""

    variants: tuple[str, ...]
    """Who is trained in it (pieces.VARIANTS)."""

    told: str
    """For the page."""


LACKS = Regime(
    "lacks",
    ALL_TASKS,
    (0.42, 0.26),
    ("zero_shot", "ans_sft", "cot_sft", "grpo", "reason_rft", "ekipl", "sft_ekipl", "ekipl_all"),
    "The policy sees well and was never taught the skill (it answers the opposite question). Experts are right 42 % and 26 % "
    "of the time, as GPT-4o and Gemini-1.5-Pro on TRANCE in the paper. One model learns all three tasks.",
)
FAIR = Regime(
    "fair",
    ("spatial_transformation",),
    (0.75, 0.60),
    ("zero_shot", "ans_sft", "cot_sft", "grpo", "reason_rft", "ekipl", "sft_ekipl"),
    "The policy has half learnt the skill already. Experts are right 75 % and 60 % of the time. Spatial transformation alone.",
)
REGIMES = {regime.name: regime for regime in (LACKS, FAIR)}


@dataclass(frozen=True)
class Size:
    """Numbers of rows, steps and samples."""

    train_rows: int
    base_rows: int
    test_rows: int
    """Of each test split."""

    steps: Mapping[str, int]
    """By regime: of reinforcement learning, and of supervised learning alone. Both see the same number of rows."""

    warm_share: float
    """Supervised steps before reinforcement learning, as a share of those."""

    batch: int
    samples: int
    """Answers a row for pass@k."""

    sampled_rows: int
    """Rows of a split that pass@k is measured on: its first ones."""

    base_round: int
    base_steps: int
    """Supervised steps of the base model between two looks, and at most."""

    fair_round: int
    num_answers: int = 8

    def early_steps(self, regime: str) -> tuple[int, ...]:
        return tuple(sorted({max(1, round(share * self.steps[regime])) for share in EARLY}))

    def warm_steps(self, regime: str) -> int:
        return max(1, round(self.warm_share * self.steps[regime]))


SIZES = {
    "study": Size(4000, 20000, 100, {"lacks": 120, "fair": 40}, 0.125, 16, 64, 50, 300, 1800, 10),
    "path": Size(32, 96, 4, {"lacks": 4, "fair": 2}, 0.125, 4, 4, 2, 2, 2, 2, num_answers=4),
}
"""study: what is reported. path: a few steps of everything, to see that it runs; its numbers mean nothing."""
