"""Expert text -> token ids of the policy, with nothing in it that the policy could mistake for structure.

Expert text is untrusted. A special token spelled in it (`<|im_end|>`, `<|image_pad|>`, ...) must not become that token:
one placeholder too many and the picture's features no longer fit the sequence; one end token too early and the policy
learns to stop. The text is encoded once, apart from the prompt, with special tokens split into characters; an answer
that still holds a forbidden id is dropped, with the reason.

Expert tokens have no rollout log-probability: the policy never sampled them. verl recomputes `old_log_probs` of every
row with the actor, and that is what the ratio uses.
"""

from dataclasses import dataclass
from typing import Any

from ekipl_rollout.answer import Answer, AnswerStatus

MAX_CHARS_PER_TOKEN = 16  # bounds the text that is looked at, whatever an expert sends


class UnusableAnswer(ValueError):
    """The answer cannot become a training row; `reason` is a metric name."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Encoder:
    """Encodes expert answers for one policy tokenizer."""

    tokenizer: Any
    """A Hugging Face tokenizer."""

    max_tokens: int
    """verl's `rollout.response_length`, end token included."""

    forbidden: frozenset[int]
    """Ids that must not appear inside a response."""

    too_long: str = "drop"
    """`drop`: an answer of more than `max_tokens` is not used; `cut`: its first `max_tokens` are."""

    strip: bool = True
    """Without the white space around it. False where its log-probability counts: that is of the text as it came."""

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, max_tokens: int, too_long: str = "drop", strip: bool = True) -> "Encoder":
        """Forbids every special id of the tokenizer; Qwen2-VL's vision placeholders are among them."""
        return cls(tokenizer, max_tokens, frozenset(tokenizer.all_special_ids), too_long, strip)

    def encode(self, answer: Answer) -> list[int]:
        """[T] response ids; ends with the policy's end token when the expert finished. Raises UnusableAnswer.

        Example:
            "<answer> 3 </answer>", finished -> [..., id("</answer>"), eos]
        """
        if not answer.status.has_text:
            raise UnusableAnswer(answer.status.value)
        if not answer.text.strip():
            raise UnusableAnswer("empty")
        text = answer.text.strip() if self.strip else answer.text
        if len(text) > self.max_tokens * MAX_CHARS_PER_TOKEN:
            if self.too_long == "drop":
                raise UnusableAnswer("too_long")
            text = text[: self.max_tokens * MAX_CHARS_PER_TOKEN]
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # lone surrogates: both SDKs deliver them, no tokenizer takes them
            raise UnusableAnswer("not_unicode") from None
        ids = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        if self.forbidden.intersection(ids):
            raise UnusableAnswer("special_token")
        finished = answer.status is AnswerStatus.FINISHED
        if len(ids) + finished > self.max_tokens:
            if self.too_long == "drop":
                raise UnusableAnswer("too_long")
            return ids[: self.max_tokens]
        return [*ids, self.tokenizer.eos_token_id] if finished else ids
