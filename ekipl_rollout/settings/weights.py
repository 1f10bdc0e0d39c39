"""`ekipl.weights`: how much each kept answer counts (weigh/, docs/selection_and_weights.md)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ekipl_rollout.settings.expert import ExpertSettings

NEEDS_NOTHING = ("none", "luffy")
NEEDS_OWN = ("per_source", "snis", "mixture_own", "clip", "geo")
NEEDS_ALL = ("mixture",)
MODES = (*NEEDS_NOTHING, *NEEDS_OWN, *NEEDS_ALL)
NEUTRAL: dict[str, tuple] = {
    "top_k": (-1, 0),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
"""Fields of a request that change what is sampled with and not what is reported, and the values that change nothing."""


@dataclass(frozen=True)
class WeightSettings:
    """w = pi_old / q in front of each row's loss."""

    mode: str = "none"
    """`none` (ablation A; what is usually done), `per_source` (B), `snis` (C), `mixture` (A.5), `mixture_own`, `clip`,
    `geo` or `luffy`."""

    clip: float = 2.0
    """The largest weight, for mode=clip."""

    geo_delta: float = 0.2
    """Weights of mode=geo stay within 1 - geo_delta and 1."""

    luffy_gamma: float = 0.1
    """The gamma of p / (p + gamma)."""

    @property
    def needs_own(self) -> bool:
        """True when each expert must tell the log-probability of its own answers."""
        return self.mode in NEEDS_OWN + NEEDS_ALL

    @property
    def needs_all(self) -> bool:
        """True when each expert must score everybody's answers."""
        return self.mode in NEEDS_ALL

    @property
    def log_clip(self) -> float:
        return math.log(self.clip)

    @property
    def log_geo_least(self) -> float:
        return math.log(1.0 - self.geo_delta)

    def problems(self) -> list[str]:
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        at = "ekipl.weights"
        if self.mode not in MODES:
            yield f"{at}.mode={self.mode!r} is not known. Choose from {', '.join(MODES)}."
        if self.clip <= 0:
            yield f"{at}.clip={self.clip} must be more than 0: it is the largest weight."
        if not 0 <= self.geo_delta < 1:
            yield f"{at}.geo_delta={self.geo_delta} must be at least 0 and less than 1."
        if self.luffy_gamma <= 0:
            yield f"{at}.luffy_gamma={self.luffy_gamma} must be more than 0."

    def expert_problems(self, experts: Sequence[ExpertSettings], too_long: str) -> Iterator[str]:
        """Log-probabilities that an expert cannot give, and what would work instead."""
        if not self.needs_own:
            return
        if too_long == "cut":
            yield f"ekipl.too_long=cut cannot work with ekipl.weights.mode={self.mode}: an expert's log-probability is that of its whole answer. Set drop."
        for expert in experts:
            for reason in self._reasons(expert):
                yield (
                    f"ekipl.weights.mode={self.mode} needs the log-probabilities of {expert.name}: {reason} Modes that work "
                    f"without them: {', '.join(NEEDS_NOTHING)}."
                )

    def _reasons(self, expert: ExpertSettings) -> Iterator[str]:
        at = f"ekipl.experts[{expert.name}]"
        if expert.kind == "offline":
            yield f"{at}.kind=offline brings texts that were imported, without any."
            return
        if not expert.logprobs:
            yield f"{at}.logprobs is false, so that it is not asked for them. Set true where the model gives them."
        if (expert.temperature, expert.top_p) != (1.0, 1.0):
            yield (
                f"{at} samples with temperature={expert.temperature}, top_p={expert.top_p}, and what it reports is then not "
                "what it samples with. Set both to 1."
            )
        changed = [name for name, values in NEUTRAL.items() if expert.extra.get(name, values[0]) not in values]
        if changed:
            yield f"{at}.extra sets {', '.join(changed)}, with which it samples, but not what it reports. Take them out."
        if self.needs_all and (expert.kind != "openai" or expert.base_url is None):
            yield f"{at} is no server of yours that scores given answers (vLLM); mixture_own does without the others' terms."
        elif self.needs_all and not expert.token_ids:
            yield f"{at}.token_ids is false, and text that is tokenised again is another answer. Set true (vLLM)."
