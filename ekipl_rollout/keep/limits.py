"""Who may not enter a selection, and who may not stay in it, each with the reason."""

from collections import Counter
from collections.abc import Callable, Sequence

from ekipl_rollout.answer import Candidate
from ekipl_rollout.keep.spread import EQUAL, mean_and_std, scopes

Dropped = list[tuple[Candidate, str]]


def only_correct_experts(ranked: Sequence[Candidate]) -> tuple[list[Candidate], Dropped]:
    """Expert answers that are not right do not enter."""
    return _split(ranked, lambda c: c.is_policy or c.is_right, "expert_wrong")


def at_most_per_expert(ranked: Sequence[Candidate], most: int) -> tuple[list[Candidate], Dropped]:
    """The best `most` answers of each expert enter."""
    seen: Counter[str] = Counter()

    def admitted(candidate: Candidate) -> bool:
        seen[candidate.source] += 1
        return candidate.is_policy or seen[candidate.source] <= most

    return _split(ranked, admitted, "expert_full")


def at_least_of_policy(
    kept: list[Candidate], ranked: Sequence[Candidate], least: int
) -> tuple[list[Candidate], Dropped]:
    """The worst expert answers give way to the best answers of the policy that were left out."""
    spare = [c for c in ranked if c.is_policy and c not in kept]
    missing = min(max(least - sum(c.is_policy for c in kept), 0), len(spare))
    gone = [c for c in kept if not c.is_policy][::-1][:missing]
    stay = [c for c in kept if c not in gone]
    return stay + spare[: len(gone)], [(c, "policy_reserved") for c in gone]


def without_negative_experts(
    kept: list[Candidate], candidates: Sequence[Candidate], baseline: str
) -> tuple[list[Candidate], Dropped]:
    """No expert answer with a negative advantage stays; two answers always do, because one has no relative advantage (such
    an expert answer has advantage 0 instead, group_report.py).

    With baseline=selected each drop raises the mean, so the worst goes first and the mean is taken anew.
    """
    stay, gone = list(kept), []
    fixed = None if baseline == "selected" else mean_and_std(scopes(candidates, kept)[baseline])[0]
    while len(stay) > 2:
        mean = mean_and_std([c.score for c in stay])[0] if fixed is None else fixed
        negative = [c for c in stay if not c.is_policy and c.score < mean - EQUAL]
        if not negative:
            break
        worst = min(negative, key=lambda c: c.score)
        stay.remove(worst)
        gone.append((worst, "expert_negative"))
    return stay, gone


def _split(
    candidates: Sequence[Candidate], admitted: Callable[[Candidate], bool], reason: str
) -> tuple[list[Candidate], Dropped]:
    stay, gone = [], []
    for candidate in candidates:
        if admitted(candidate):
            stay.append(candidate)
        else:
            gone.append((candidate, reason))
    return stay, gone
