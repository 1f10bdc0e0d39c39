"""A kept answer and its log-probabilities, each a sum over the whole sequence in nats.

Tokens of different tokenizers do not align, so only sums are compared. The log-probability of one tokenisation is a lower
bound on that of the text, which is a sum over all of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ekipl_rollout.answer import POLICY


@dataclass(frozen=True)
class WeighedRow:
    """One row of the batch, as the weights see it."""

    source: str

    log_old: float
    """log pi_old(o): verl's `old_log_probs` over the response, at the training temperature."""

    num_tokens: int
    """T: response tokens under the policy's tokenizer, those that are masked out not counted."""

    log_own: float | None = None
    """log pi_s(o) under the expert that gave it, its own tokens; None for the policy and where nobody knows."""

    log_under: Mapping[str, float] = field(default_factory=dict)
    """log pi_j(o) under every expert j, for `mixture`; empty where it was not asked."""

    @property
    def is_policy(self) -> bool:
        return self.source == POLICY


def shares(sources: Iterable[str]) -> dict[str, float]:
    """alpha_j = n_j / n: which part of all candidates of a group came from each source. The paper's is 1 / (M+1)."""
    counts: dict[str, int] = {}
    for source in sources:
        counts[source] = counts.get(source, 0) + 1
    return {source: count / sum(counts.values()) for source, count in counts.items()}
