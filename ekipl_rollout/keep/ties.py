"""Order among candidates of equal reward. Rewards are discrete, so ties decide most selections; the paper leaves them open.

A tie order takes a group in the order of its sessions and returns it in order of preference; a stable sort by reward comes
after it.
"""

import random
from collections import Counter
from collections.abc import Callable

from ekipl_rollout.answer import POLICY, Candidate

TieOrder = Callable[[list[Candidate], int | str], list[Candidate]]


def policy_first(group: list[Candidate], _: int | str) -> list[Candidate]:
    """The order of the paper's Eq. 6. Keeps on-policy data."""
    return [c for c in group if c.source == POLICY] + [c for c in group if c.source != POLICY]


def expert_first(group: list[Candidate], _: int | str) -> list[Candidate]:
    return [c for c in group if c.source != POLICY] + [c for c in group if c.source == POLICY]


def shuffled(group: list[Candidate], seed: int | str) -> list[Candidate]:
    """Every order is equally likely; the same for the same seed."""
    return random.Random(str(seed)).sample(group, len(group))


def round_robin(group: list[Candidate], seed: int | str) -> list[Candidate]:
    """One of each source in turn, the policy first: no source wins all ties."""
    seen: Counter[tuple[float, str]] = Counter()
    turns = []
    for candidate in policy_first(group, seed):
        turns.append((seen[candidate.score, candidate.source], candidate))
        seen[candidate.score, candidate.source] += 1
    return [candidate for _, candidate in sorted(turns, key=lambda turn: turn[0])]


def shortest(group: list[Candidate], seed: int | str) -> list[Candidate]:
    """Fewest tokens first, then the policy's."""
    return sorted(policy_first(group, seed), key=lambda c: c.length)


TIES: dict[str, TieOrder] = {
    "policy_first": policy_first,
    "expert_first": expert_first,
    "random": shuffled,
    "round_robin": round_robin,
    "shortest": shortest,
}
