"""A provider's reply in plain values: what both protocols have in common."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ekipl_rollout.answer import Answer, AnswerStatus
from ekipl_rollout.errors import ExpertError


@dataclass(frozen=True)
class Choice:
    """One of the answers of a reply."""

    text: str
    status: AnswerStatus
    logprobs: list[float] | None = None
    token_ids: list[int] | None = None


@dataclass(frozen=True)
class Reply:
    """What came back for one request that the provider accepted."""

    choices: list[Choice] = field(default_factory=list)

    input_tokens: int | None = None
    """None when the provider did not say what it bills; likewise below."""

    output_tokens: int | None = None
    """Hidden reasoning included."""

    thought_tokens: int = 0
    model: str = ""
    request_id: str = ""

    problem: ExpertError | None = None
    """Why it holds no answer, where that is not a failure of the transport: a blocked prompt is billed, too."""

    @property
    def is_billed(self) -> bool:
        return self.input_tokens is not None and self.output_tokens is not None

    def answers(self, source: str, count: int, *, dollars: float, seconds: float, retries: int) -> list[Answer]:
        """The first `count` choices as answers. Providers bill requests, so tokens and dollars are shared among them."""
        choices = self.choices[:count]
        output, thought = (_shares(tokens or 0, len(choices)) for tokens in (self.output_tokens, self.thought_tokens))
        return [
            Answer(
                source,
                index,
                choice.text,
                choice.status,
                output_tokens=output[index],
                dollars=dollars / len(choices),
                seconds=seconds,
                retries=0 if index else retries,
                thought_tokens=thought[index],
                logprobs=choice.logprobs,
                token_ids=choice.token_ids,
                model=self.model,
                request_id=self.request_id,
            )
            for index, choice in enumerate(choices)
        ]


def _shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` whole numbers that differ by one at most and sum to it."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def status_of(finish: Any, text: str, known: dict[str, AnswerStatus]) -> AnswerStatus:
    """How a choice ended. Servers invent finish reasons: text with an unknown one may lack its end, so it counts as cut."""
    status = known.get(finish if isinstance(finish, str) else "", AnswerStatus.CUT_AT_LENGTH)
    return AnswerStatus.EMPTY if status.has_text and not text.strip() else status


def numbers(values: Sequence[Any] | None, kind: type[int] | type[float]) -> list[Any] | None:
    """`values` when every one of them is a finite number of that kind; None for anything else."""
    if not values or not all(
        isinstance(v, (int, kind)) and not isinstance(v, bool) and math.isfinite(v) for v in values
    ):
        return None
    return [kind(value) for value in values]


MOST_TOKENS = 100_000_000
"""Of one request. A bill beyond it is believed as little as none at all: the request is settled in full."""


def token_count(value: Any) -> int | None:
    """A count as a provider should send it; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None
