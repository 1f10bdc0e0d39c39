"""What travels from room to room: a question, answers to it, judged candidates, and what is kept of them."""

import hashlib
import math
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

POLICY = "policy"
"""Source name of the model that is trained. Every other source is an expert's configured name."""


@dataclass(frozen=True)
class Message:
    """One chat turn: text and pictures in the order in which they are shown."""

    role: str
    parts: tuple["str | bytes", ...]
    """Text as `str`, a picture as the original encoded `bytes` (PNG, JPEG, ...), never re-encoded."""


@dataclass(frozen=True)
class Question:
    """What everybody is asked for one row."""

    id: str
    """Unique within a step; for logs only."""

    messages: tuple[Message, ...]

    step: int | None = None
    """Training step, for budgets per step; None outside of training."""

    deadline: float | None = None
    """`time.monotonic()` at which nobody listens any more; an expert starts nothing that cannot end before. None: never."""

    encoded: dict[bytes, Any] = field(default_factory=dict, compare=False, repr=False)
    """Pictures as experts send them, made once and shared by all experts of this question (experts/pictures.py)."""

    @property
    def images(self) -> list[bytes]:
        return [part for message in self.messages for part in message.parts if isinstance(part, bytes)]

    @cached_property
    def picture_digests(self) -> list[str]:
        """sha256 of each picture's bytes, in order; computed once, however many experts are asked."""
        return [hashlib.sha256(image).hexdigest() for image in self.images]


class AnswerStatus(str, Enum):
    """How an answer ended."""

    FINISHED = "finished"
    CUT_AT_LENGTH = "cut_at_length"
    REFUSED = "refused"  # the model declined
    BLOCKED = "blocked"  # a content filter took it away
    EMPTY = "empty"

    @property
    def has_text(self) -> bool:
        return self in (AnswerStatus.FINISHED, AnswerStatus.CUT_AT_LENGTH)


@dataclass(frozen=True)
class Answer:
    """One response of one expert to one question."""

    source: str
    """The expert's configured name."""

    index: int
    """0 ... N-1: which of the answers of this source to this question."""

    text: str
    status: AnswerStatus
    output_tokens: int = 0
    """Billed output tokens by the provider's count, hidden reasoning included; 0 when unknown."""

    dollars: float = 0.0
    """Cost by the configured prices; a request's input is shared among its answers."""

    seconds: float = 0.0
    """Wall-clock from the request to the last token; 0 for a recorded answer."""

    recorded: bool = False
    """True when it came from the record and nobody was asked."""

    retries: int = 0
    """Requests that failed before the one that brought it; the first answer of a request carries them for all."""

    thought_tokens: int = 0
    """Hidden reasoning among `output_tokens`, where the provider says so."""

    logprobs: list[float] | None = None
    """[T] log-probability of each token under the expert, as its server reports them; None when not asked or refused."""

    token_ids: list[int] | None = None
    """[T] the tokens themselves, under the expert's own tokenizer; None when the server does not tell."""

    model: str = ""
    """The model that answered, in the provider's own words: aliases move, and switched-off models are rerouted."""

    request_id: str = ""
    """The provider's name of the request, for its support."""

    @property
    def log_probability(self) -> float | None:
        """Of the whole answer under the expert, in nats; None where its server does not tell, and after hidden reasoning: the
        visible tokens were sampled given what nobody sees."""
        if not self.logprobs or self.thought_tokens or not all(map(math.isfinite, self.logprobs)):
            return None
        return math.fsum(self.logprobs)


@dataclass(eq=False)
class Candidate:
    """A judged answer that may be kept for the gradient. Equal to itself only."""

    source: str
    session: int
    """Number within the group, unique over all sources; the policy's come first. verl's session id."""

    score: float
    """Reward R (paper, Eq. 7)."""

    parts: dict[str, Any] = field(default_factory=dict)
    """The reward's other outputs: `format`, `accuracy`, ..."""

    length: int = 0
    """Response tokens under the policy's tokenizer."""

    text: str = ""

    log_own: float | None = None
    """log-probability of the whole answer under the expert that gave it, in nats; None for the policy and where the expert
    does not tell."""

    log_under: dict[str, float] = field(default_factory=dict)
    """Likewise under every expert, by name, for ekipl.weights.mode=mixture."""

    payload: Any = None
    """What the trainer needs to write the row; the filter never looks at it."""

    @property
    def is_policy(self) -> bool:
        return self.source == POLICY

    @property
    def accuracy(self) -> float:
        """By the reward's own word; verl calls what a reward function without parts returns `acc`."""
        return float(self.parts.get("accuracy", self.parts.get("acc", 0.0)) or 0.0)

    @property
    def is_right(self) -> bool:
        """Full accuracy."""
        return self.accuracy >= 1.0


@dataclass
class Selection:
    """What a filter decided about one group."""

    kept: list[Candidate]
    dropped: list[tuple[Candidate, str]]
    """With the reason for each."""
