"""Keep: a judged group of N(1+M) candidates -> the best G, and the reason for each drop. No torch, no verl.

The paper (section 3.2): sort the union of all sources by reward and take the top G. What it leaves open is a setting
each (settings/select.py): ties, other rules, and limits for experts. The parts are in keep/.
"""

from collections.abc import Sequence
from operator import attrgetter

from ekipl_rollout.answer import Candidate, Selection
from ekipl_rollout.keep.limits import (
    Dropped,
    at_least_of_policy,
    at_most_per_expert,
    only_correct_experts,
    without_negative_experts,
)
from ekipl_rollout.keep.ties import TIES
from ekipl_rollout.settings.select import SelectSettings

_PAPERS = SelectSettings()
_session, _score = attrgetter("session"), attrgetter("score")


def select(
    candidates: Sequence[Candidate],
    num_kept: int,
    settings: SelectSettings = _PAPERS,
    baseline: str = "selected",
    seed: int | str = 0,
) -> Selection:
    """The kept candidates, `num_kept` at most: fewer are all kept, and none is ever duplicated.

    `baseline` is ekipl.advantage.baseline: it decides which advantages are negative. The outcome depends on the
    arguments only, not on the order in which answers arrived.

    Example:
        scores [1.0 gpt, 0.0 policy, 1.0 policy, 0.5 gemini], num_kept=2 -> [policy 1.0, gpt 1.0]
    """
    ranked = rank(candidates, settings.ties, seed)
    dropped: Dropped = []
    if settings.correct_experts_only:
        ranked, gone = only_correct_experts(ranked)
        dropped += gone
    if settings.max_per_expert is not None:
        ranked, gone = at_most_per_expert(ranked, settings.max_per_expert)
        dropped += gone
    kept = settings.apply_rule(ranked, num_kept)
    if settings.min_policy:
        kept, gone = at_least_of_policy(kept, ranked, settings.min_policy)
        dropped += gone
    if settings.negative_experts == "drop":
        kept, gone = without_negative_experts(kept, candidates, baseline)
        dropped += gone
    return Selection(kept, dropped + _left_out(ranked, kept, dropped))


def rank(candidates: Sequence[Candidate], ties: str = "policy_first", seed: int | str = 0) -> list[Candidate]:
    """Best reward first, ties broken."""
    ranked = TIES[ties](sorted(candidates, key=_session), seed)
    ranked.sort(key=_score, reverse=True)  # stable, also in reverse
    return ranked


def _left_out(ranked: list[Candidate], kept: list[Candidate], dropped: Dropped) -> Dropped:
    """Why the rule left an answer out: a lower reward than any kept one, a lost tie, or the rule's own will."""
    settled = {id(c) for c in kept}
    settled.update(id(c) for c, _ in dropped)
    cut = min(map(_score, kept), default=0.0)
    return [
        (c, "lower_reward" if c.score < cut else "lost_a_tie" if c.score == cut else "passed_over")
        for c in ranked
        if id(c) not in settled
    ]
