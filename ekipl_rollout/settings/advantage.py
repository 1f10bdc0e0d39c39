"""`ekipl.advantage`: over which candidates mean and standard deviation are taken, and what becomes of silent groups."""

from collections.abc import Iterator
from dataclasses import dataclass

BASELINES = ("selected", "all", "policy_only")
STANDARD_DEVIATIONS = ("selected", "all", "none")
SILENT_GROUPS = ("keep", "drop", "resample")
CONTROLS = ("none", "imitate", "imitate_experts")


@dataclass(frozen=True)
class AdvantageSettings:
    """A = (R - mean) / std: over which candidates?"""

    baseline: str = "selected"
    """Mean over the kept G (`selected`: the paper's Eq. 1), over all N(1+M) candidates (`all`), or over the N answers of
    the policy (`policy_only`)."""

    std: str = "selected"
    """Standard deviation over the kept G (`selected`, with the same baseline only), over all candidates (`all`), or no
    division (`none`)."""

    silent_groups: str = "keep"
    """Groups whose advantages are all zero. `keep`: KL term alone, beside rows that teach; `drop`: they leave the batch,
    unless the whole batch is silent; `resample`: another row takes their place, by verl's own dynamic sampling."""

    control: str = "none"
    """For ablations: A = 1 for kept answers that are right (`imitate`), or for those of experts only (`imitate_experts`),
    and 0 for all others. That is plain imitation: what remains of EKIPL without the group-relative weight."""

    resample_batches: int = 2
    """Batches worth of silent groups that a step replaces at most. Each replacement asks experts anew."""

    def problems(self) -> list[str]:
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        known = {"baseline": BASELINES, "std": STANDARD_DEVIATIONS, "silent_groups": SILENT_GROUPS, "control": CONTROLS}
        for name, choices in known.items():
            if (value := getattr(self, name)) not in choices:
                yield f"ekipl.advantage.{name}={value!r} is not known. Choose from {', '.join(choices)}."
        if self.baseline != "selected" and self.std == "selected":
            yield (
                f"ekipl.advantage.std=selected cannot work with baseline={self.baseline}: where the kept answers are alike but differ "
                "from the mean, they would be divided by their deviation of 0. Set std=all or none."
            )
        if self.resample_batches < 1:
            yield f"ekipl.advantage.resample_batches={self.resample_batches} must be 1 or more. Use silent_groups=keep for none."

    @property
    def is_papers(self) -> bool:
        """True when verl's own GRPO computes exactly this."""
        return (self.baseline, self.std, self.control) == ("selected", "selected", "none")
