"""`ekipl.advantage`: over which candidates mean and standard deviation are taken."""

from dataclasses import dataclass

BASELINES = ("selected", "all")
STANDARD_DEVIATIONS = ("selected", "all", "none")


@dataclass(frozen=True)
class AdvantageSettings:
    """A = (R - mean) / std: over which candidates?"""

    baseline: str = "selected"
    """`selected`: mean over the kept G (paper, Eq. 1); `all`: over all N(1+M) candidates."""

    std: str = "selected"
    """`selected`, `all` or `none` (no division), likewise."""

    def problems(self) -> list[str]:
        found = []
        if self.baseline not in BASELINES:
            found.append(
                f"ekipl.advantage.baseline={self.baseline!r} is not known. Choose from {', '.join(BASELINES)}."
            )
        if self.std not in STANDARD_DEVIATIONS:
            found.append(
                f"ekipl.advantage.std={self.std!r} is not known. Choose from {', '.join(STANDARD_DEVIATIONS)}."
            )
        return found

    @property
    def is_papers(self) -> bool:
        """True when verl's own GRPO computes exactly this."""
        return self.baseline == "selected" and self.std == "selected"
