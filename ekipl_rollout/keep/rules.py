"""Selection rules: ranked candidates -> the kept ones.

A rule is a pure function of three things and returns a part of the first:

    ranked        candidates, best reward first, ties broken by ekipl.select.ties
    num_kept      G
    num_experts   ekipl.select.num_experts: how many expert answers, for the rules that count them

A rule of your own is any such function, by its dotted name: `ekipl.select.rule=my_lab.rules.two_of_each`.

    def two_of_each(ranked, num_kept, num_experts):
        seen = Counter()
        return [c for c in ranked if seen.update([c.source]) or seen[c.source] <= 2][:num_kept]
"""

from collections.abc import Callable, Iterable

from ekipl_rollout.answer import Candidate
from ekipl_rollout.keep.spread import EQUAL, is_silent

Rule = Callable[[list[Candidate], int, int], list[Candidate]]


def top_g(ranked: list[Candidate], num_kept: int, _: int) -> list[Candidate]:
    """The paper's (section 3.2): the best G of all sources."""
    return ranked[:num_kept]


def contrast(ranked: list[Candidate], num_kept: int, _: int) -> list[Candidate]:
    """The best G; where these are all alike, up to half of them give way to lower answers of the policy.

    Only of the policy: a wrong expert answer with a negative advantage pushes down tokens that the policy hardly
    produces, which nothing bounds.
    """
    best = ranked[:num_kept]
    if not is_silent([c.score for c in best]) or not best:
        return best
    lower = [c for c in ranked[num_kept:] if c.is_policy and c.score < best[-1].score - EQUAL][: num_kept // 2]
    return best[: num_kept - len(lower)] + lower


def experts_and_policy(ranked: list[Candidate], num_kept: int, num_experts: int) -> list[Candidate]:
    """The best expert answers beside the policy's own as they came, not chosen by reward."""
    policy, experts = _by_session(c for c in ranked if c.is_policy), [c for c in ranked if not c.is_policy]
    num_policy = max(num_kept - min(num_experts, len(experts)), 0)
    own = policy[:num_policy]
    return own + experts[: num_kept - len(own)]


def unsolved_only(ranked: list[Candidate], num_kept: int, _: int) -> list[Candidate]:
    """The best G where no answer of the policy is right; the policy's own, as they came, everywhere else."""
    policy = [c for c in ranked if c.is_policy]
    return _by_session(policy)[:num_kept] if any(c.is_right for c in policy) else ranked[:num_kept]


def replace_wrong(ranked: list[Candidate], num_kept: int, num_experts: int) -> list[Candidate]:
    """The policy's own as they came, the worst of the wrong ones replaced by right expert answers."""
    own = _by_session(c for c in ranked if c.is_policy)[:num_kept]
    helpers = [c for c in ranked if not c.is_policy and c.is_right][:num_experts]
    wrong = [c for c in ranked if c.is_policy and not c.is_right and c in own]
    room = num_kept - len(own)
    gone = wrong[::-1][: max(len(helpers) - room, 0)]
    stay = [c for c in own if c not in gone]
    return stay + helpers[: num_kept - len(stay)]


def few_experts(ranked: list[Candidate], num_kept: int, num_experts: int) -> list[Candidate]:
    """The best G with at most so many expert answers among them."""
    admitted = {id(c) for c in [c for c in ranked if not c.is_policy][:num_experts]}
    return [c for c in ranked if c.is_policy or id(c) in admitted][:num_kept]


def _by_session(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda c: c.session)


RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (top_g, contrast, experts_and_policy, unsolved_only, replace_wrong, few_experts)
}
