"""Kept answers under every expert, for ekipl.weights.mode=mixture (paper, A.5)."""

import asyncio
from collections.abc import Sequence

from ekipl_rollout.answer import POLICY, Answer, Candidate, Question, Selection
from ekipl_rollout.experts.score import Given, Scorer
from ekipl_rollout.settings import ExpertSettings


class Scoring:
    """The scorers of one worker."""

    def __init__(self, experts: Sequence[ExpertSettings]):
        self._experts = experts
        self._scorers: list[Scorer] = []

    async def score(
        self,
        selection: Selection,
        sources: set[str],
        question: Question,
        answers: Sequence[Answer],
        finished: dict[int, bool],
    ) -> Selection:
        """`selection` with `log_under` filled for the experts among `sources`: those that gave an answer, whose share of the
        proposal is not 0. `finished` by session. What cannot be scored is dropped as `not_scored`: it has no weight."""
        self._scorers = self._scorers or [Scorer(expert) for expert in self._experts]
        asked = [scorer for scorer in self._scorers if scorer.name in sources - {POLICY}]
        await asyncio.gather(*(self._under(scorer, selection.kept, question, answers, finished) for scorer in asked))
        names = {scorer.name for scorer in asked}
        kept = [c for c in selection.kept if names <= set(c.log_under)]
        lost = [(c, "not_scored") for c in selection.kept if not names <= set(c.log_under)]
        return Selection(kept, selection.dropped + lost)

    async def close(self) -> None:
        for scorer in self._scorers:
            await scorer.close()

    async def _under(
        self,
        scorer: Scorer,
        kept: Sequence[Candidate],
        question: Question,
        answers: Sequence[Answer],
        finished: dict[int, bool],
    ) -> None:
        """An expert's own answers keep what it reported when it sampled them."""
        scorer.learn_end_token(answers)
        others = [c for c in kept if c.source != scorer.name]
        scores = await scorer.log_probabilities(question, [Given(c.text, finished[c.session]) for c in others])
        own = [(c, c.log_own) for c in kept if c.source == scorer.name]
        for candidate, score in [*zip(others, scores, strict=True), *own]:
            if score is not None:
                candidate.log_under[scorer.name] = score
