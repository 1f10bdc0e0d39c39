"""The paper's claims as questions to the numbers. The answer follows from intervals by one rule, and not from a reader.

A claim is one or several differences that should be above zero. It *held* when every 95 % interval lies above zero, *did not
hold* when one lies below, and is *undecided here* otherwise. A difference is between the same rows and the same training
seeds, those that both sides have; intervals resample rows and seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recipe.ekipl.measure.statistics import Comparison
from recipe.ekipl.measure.table_rows import TASKS
from recipe.ekipl.reproduce.measured import Measured, NotMeasured

HELD, NOT_HELD, UNDECIDED, MISSING = "held", "did not hold", "undecided here", "not measured"
SFT = ("ans_sft", "cot_sft")
SPATIAL = TASKS["spatial_transformation"][1]

Differences = dict[str, Comparison]
"""What was compared -> the difference."""


@dataclass(frozen=True)
class Claim:
    """One statement of the paper."""

    text: str
    where: str
    """In the paper."""

    differences: Callable[[Measured, str], Differences]
    """(what was measured, who stands for Vision-EKIPL) -> differences that should be above zero. May raise NotMeasured."""


@dataclass(frozen=True)
class Answer:
    """What became of a claim."""

    claim: Claim
    state: str
    differences: Differences

    @property
    def seeds(self) -> int:
        """Training seeds behind it: those of the difference that has fewest."""
        return min((difference.runs for difference in self.differences.values()), default=0)


def answer(claim: Claim, measured: Measured, ekipl: str) -> Answer:
    try:
        found = claim.differences(measured, ekipl)
    except NotMeasured:
        return Answer(claim, MISSING, {})
    return Answer(claim, state_of(list(found.values())), found)


def state_of(differences: Sequence[Comparison]) -> str:
    if any(difference.high < 0 for difference in differences):
        return NOT_HELD
    return HELD if all(difference.low > 0 for difference in differences) else UNDECIDED


def claims_of(tasks: Sequence[str]) -> list[Claim]:
    """Those about `tasks`; what the paper says about efficiency, sources and pass@k is about spatial transformation."""
    found = []
    for task in tasks:
        title, splits = TASKS[task]
        name = title.lower()
        if task != "structure_perception":  # in domain the paper's 2B model itself is behind ANS-SFT there
            found.append(Claim(f"{name}, in domain: Vision-EKIPL is best", "Table 1, 4.2", _best(splits[:1])))
        found.append(Claim(f"{name}, out of domain: Vision-EKIPL is best", "Table 1, 4.2", _best(splits[1:])))
        found.append(Claim(f"{name}, out of domain: RL generalizes better than SFT", "4.2", _rl_above_sft(splits[1:])))
    if "spatial_transformation" in tasks:
        found += SPATIAL_CLAIMS
    return found


def _best(splits: Sequence[str]) -> Callable[[Measured, str], Differences]:
    def differences(measured: Measured, ekipl: str) -> Differences:
        others = ("zero_shot", *SFT, "grpo", "reason_rft")
        mine = measured.results(ekipl)
        return {f"minus {other}": measured.difference(mine, measured.results(other), splits) for other in others}

    return differences


def _rl_above_sft(splits: Sequence[str]) -> Callable[[Measured, str], Differences]:
    def differences(measured: Measured, ekipl: str) -> Differences:
        learners = ("grpo", "reason_rft", ekipl)
        return {
            f"{rl} minus {sft}": measured.difference(measured.results(rl), measured.results(sft), splits)
            for rl in learners
            for sft in SFT
        }

    return differences


def _early(
    learner: str, share_index: int, factor: float, splits: Sequence[str]
) -> Callable[[Measured, str], Differences]:
    """`learner` (empty: who stands for Vision-EKIPL) after a share of the rows, minus `factor` of Reason-RFT at the end."""

    def differences(measured: Measured, ekipl: str) -> Differences:
        steps = measured.study.size.early_steps(measured.regime.name)
        step = steps[min(share_index, len(steps) - 1)]
        early = measured.results(learner or ekipl, f"step-{step}")
        told = f"at step {step} minus {factor:g} x reason_rft at the end"
        return {told: measured.difference(early, measured.results("reason_rft"), splits, factor)}

    return differences


def _share_falls(measured: Measured, ekipl: str) -> Differences:
    return {"first quarter minus last": measured.fall_of_expert_share(ekipl)}


def _passes(first: str, second: str, sizes: Callable[[int], Sequence[int]]) -> Callable[[Measured, str], Differences]:
    """pass@k of `first` minus `second` (empty: who stands for Vision-EKIPL) at `sizes` of the number of samples."""

    def differences(measured: Measured, ekipl: str) -> Differences:
        a, b = first or ekipl, second or ekipl
        return {
            f"k={k}: {a} minus {b}": measured.pass_difference(a, b, SPATIAL[0], k) for k in sizes(measured.samples())
        }

    return differences


def _above_experts(measured: Measured, ekipl: str) -> Differences:
    mine = measured.results(ekipl)
    return {
        f"minus {expert}": measured.difference(mine, measured.results(expert), SPATIAL[1:])
        for expert in ("demo-a", "demo-b")
    }


def _powers(samples: int) -> list[int]:
    return [k for k in (1, 4, 16, 64, 256) if k <= samples]


SPATIAL_CLAIMS = [
    Claim("spatial, out of domain: Vision-EKIPL ends above its experts", "4.2", _above_experts),
    Claim(
        "spatial, in domain: with 25 % of the rows as good as all of Reason-RFT",
        "Figure 3a",
        _early("", 1, 1, SPATIAL[:1]),
    ),
    Claim(
        "spatial, in domain: after CoT-SFT, with 12 % of the rows at 93 % of Reason-RFT",
        "Figure 3a",
        _early("sft_ekipl", 0, 0.93, SPATIAL[:1]),
    ),
    Claim(
        "spatial, out of domain: with 12 % of the rows as good as Reason-RFT",
        "Figure 3b",
        _early("", 0, 1, SPATIAL[1:]),
    ),
    Claim("the experts' share of the kept answers falls", "Figure 4", _share_falls),
    Claim("pass@1: Vision-EKIPL above the base model", "Figure 5", _passes("", "zero_shot", lambda n: [1])),
    Claim("pass@1: Reason-RFT above the base model", "Figure 5", _passes("reason_rft", "zero_shot", lambda n: [1])),
    Claim(
        "pass@k, large k: the base model above Reason-RFT",
        "Figure 5",
        _passes("zero_shot", "reason_rft", lambda n: [n]),
    ),
    Claim("pass@k, every k: Vision-EKIPL above the base model", "Figure 5", _passes("", "zero_shot", _powers)),
    Claim("pass@k, every k: Vision-EKIPL above Reason-RFT", "Figure 5", _passes("", "reason_rft", _powers)),
]
