"""`ekipl.learn`: what the update does with expert rows (on_verl/loss.py)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ekipl_rollout.settings.ask import FractionSettings

SFT_FOCUS = ("none", "chord", "srft")


@dataclass(frozen=True)
class LearnSettings:
    """Terms of the loss on expert rows. The defaults are the paper's: an expert row is a row like any other."""

    kl_on_experts: bool = True
    """The KL term on expert tokens. The estimate takes tokens for samples of the policy, which these are not."""

    entropy_on_experts: bool = True
    """The entropy term on expert tokens, where actor.entropy_coeff is not 0."""

    clip_on_experts: bool = True
    """PPO's clipping on expert rows; it only acts from the second mini-batch of a step on."""

    sft: FractionSettings = field(default_factory=lambda: FractionSettings(start=0.0))
    """Weight of -log pi on the kept expert answers that are right, over training steps (CHORD, SRFT). 0 is without."""

    sft_focus: str = "none"
    """Weight of a token in that term: `none` (1), `chord` (p (1 - p): neither known nor foreign tokens), or `srft`
    (exp(-entropy) / 2 of the row)."""

    @property
    def needs_loss(self) -> bool:
        """True when verl's own loss does not do."""
        return not (self.kl_on_experts and self.entropy_on_experts and self.clip_on_experts) or self.has_sft

    @property
    def has_sft(self) -> bool:
        return max(self.sft.start, self.sft.end if self.sft.schedule != "constant" else 0.0) > 0

    def problems(self) -> list[str]:
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from self.sft.problems("ekipl.learn.sft")
        if self.sft_focus not in SFT_FOCUS:
            yield f"ekipl.learn.sft_focus={self.sft_focus!r} is not known. Choose from {', '.join(SFT_FOCUS)}."
