"""What is compared: regimes x variants x seeds. A cell is one training run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ekipl_rollout.errors import SettingsError


@dataclass(frozen=True)
class Regime:
    """Where the policy stands, and how good the demo experts are."""

    about: str
    model: str
    """Folder of the model that is trained; {world} is Cell.world."""

    personas: tuple[str, ...]
    """Arguments of recipe.ekipl.tiny.demo_experts."""

    steps: int
    lr: float


REGIMES = {
    "lacks_skill": Regime(
        "the policy sees but was never asked this; experts right .42 and .26",
        "models/tiny-visual_counting-{world}",
        (),
        steps=100,
        lr=4e-4,
    ),
    "fair": Regime(
        "the policy already answers half of it; experts right .75 and .60",
        "models/tiny-visual_counting-fair-{world}",
        ("--expert", "demo-a:skill=0.75", "--expert", "demo-b:skill=0.60"),
        steps=40,
        lr=1e-4,
    ),
}


@dataclass(frozen=True)
class Variant:
    """One way to choose and to weigh."""

    about: str
    overrides: tuple[str, ...] = ()
    experts: str = "demo_priced"
    """config/experts; `vllm` is a longer-trained tiny model behind a real vLLM server, which tells log-probabilities."""


PAPER, ROBUST = "preset=paper", "preset=robust"
UNCLIPPED = "actor_rollout_ref.actor.clip_ratio_high=100.0"
"""Imitation has no trust region; with several updates a step PPO's clipping would put one on it."""
VARIANTS = {
    "grpo": Variant("no expert", (PAPER,), "none"),
    "paper": Variant("the paper's rule: best G, Eq. 1 over these", (PAPER,)),
    "robust": Variant("best G, mean and std over all candidates", (ROBUST,)),
    "policy_baseline": Variant(
        "best G, mean over the policy's answers", ("ekipl.advantage.baseline=policy_only", "ekipl.advantage.std=all")
    ),
    "no_std": Variant("robust without division", (ROBUST, "ekipl.advantage.std=none")),
    "no_negative": Variant("robust, A < 0 on expert rows set to 0", (ROBUST, "ekipl.select.negative_experts=zero")),
    "random_ties": Variant("the paper's rule, ties by lot", (PAPER, "ekipl.select.ties=random")),
    "contrast": Variant("best G with spread", (PAPER, "ekipl.select.rule=contrast")),
    "experts_and_policy": Variant("4 best experts + 4 of the policy", (PAPER, "ekipl.select.rule=experts_and_policy")),
    "unsolved_only": Variant("experts where the policy fails", (PAPER, "ekipl.select.rule=unsolved_only")),
    "replace_wrong": Variant(
        "right experts replace wrong answers of the policy", (PAPER, "ekipl.select.rule=replace_wrong")
    ),
    "two_per_expert": Variant("the paper's rule, 2 answers an expert", (PAPER, "ekipl.select.max_per_expert=2")),
    "imitate": Variant(
        "control: plain imitation of right kept answers", (ROBUST, "ekipl.advantage.control=imitate", UNCLIPPED)
    ),
    "imitate_experts": Variant(
        "control: plain imitation of right expert answers",
        (ROBUST, "ekipl.advantage.control=imitate_experts", UNCLIPPED),
    ),
    "luffy": Variant(
        "robust with LUFFY's shaping, one update a step",
        (ROBUST, "ekipl.weights.mode=luffy", "actor_rollout_ref.actor.ppo_mini_batch_size=${data.train_batch_size}"),
    ),
    "A_none": Variant("robust, uncorrected, vLLM expert", (ROBUST,), "vllm"),
    "B_per_source": Variant("robust, exact weights, vLLM expert", (ROBUST, "ekipl.weights.mode=per_source"), "vllm"),
    "C_snis": Variant("robust, self-normalised, vLLM expert", (ROBUST, "ekipl.weights.mode=snis"), "vllm"),
    "mixture": Variant("robust, exact mixture weights, vLLM expert", (ROBUST, "ekipl.weights.mode=mixture"), "vllm"),
    "geo": Variant("robust, weight per token, vLLM expert", (ROBUST, "ekipl.weights.mode=geo"), "vllm"),
}
CORE = ("grpo", "paper", "robust", "contrast", "imitate", "imitate_experts", "A_none", "B_per_source", "C_snis")
"""What the questions of the paper need, and what a small machine can train; the word `all` stands for every variant."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    regime: str
    variant: str
    seed: int
    steps: int
    lr: float
    look: bool = False
    """A small world and an untaught base model, to see that everything runs; the numbers mean nothing."""

    @property
    def name(self) -> str:
        """In the results file and as a folder."""
        return f"{self.regime}-{self.variant}-s{self.seed}-{self.steps}x{self.lr:g}" + "-look" * self.look

    @property
    def needs(self) -> tuple[str, ...]:
        """Cells that must have ended before: none (lanes.py)."""
        return ()

    @property
    def world(self) -> str:
        """Ending of the names of data and models that cells share."""
        return f"{'look-' * self.look}{self.seed}"


def make_cells(
    regimes: Iterable[str],
    variants: Iterable[str],
    seeds: Sequence[int],
    steps: int | None = None,
    lr: float | None = None,
    look: bool = False,
) -> list[Cell]:
    """In the order in which they are run: seed by seed, so that an early stop leaves whole comparisons. Steps and learning
    rate are the regime's unless given.

    Raises SettingsError for a name that is not known.
    """
    regimes, variants = list(regimes), list(variants)
    variants = list(VARIANTS) if variants == ["all"] else variants
    unknown = [name for name in regimes if name not in REGIMES] + [name for name in variants if name not in VARIANTS]
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)}: not known. Regimes: {', '.join(REGIMES)}. Variants: {', '.join(VARIANTS)}."
        )
    return [
        Cell(regime, variant, seed, steps or REGIMES[regime].steps, lr or REGIMES[regime].lr, look)
        for seed in seeds
        for regime in regimes
        for variant in variants
    ]
