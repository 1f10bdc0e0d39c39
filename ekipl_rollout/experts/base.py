"""An expert: a model that is asked and never trained."""

from typing import Protocol

from ekipl_rollout.answer import Answer, Question


class Expert(Protocol):
    """Everything the rest of the package knows about an expert."""

    name: str
    """As configured; the `source` of its answers."""

    async def answer(self, question: Question, num_answers: int) -> list[Answer]:
        """Up to `num_answers` answers. Raises ExpertError, and nothing else, when the request as a whole fails."""
        ...

    async def close(self) -> None:
        """Releases connections. Called once, in the loop that asked."""
        ...
