"""What is sent to an expert and what came back, for people. Text of others is printed, never obeyed by the terminal."""

import hashlib
from collections.abc import Sequence

from ekipl_rollout.answer import Answer, Message, Question
from ekipl_rollout.experts.pictures import look_at
from ekipl_rollout.experts.prompting import Prompting
from ekipl_rollout.inert import printable
from ekipl_rollout.settings import ExpertSettings


def what_is_sent(settings: ExpertSettings, question: Question, num_answers: int) -> str:
    """The messages in full; a picture as one line about it."""
    instruction = f"instruction {settings.instruction_version}" if settings.instruction else "no instruction"
    lines = [
        f"to {settings.name} ({settings.kind}: {settings.model}) at {settings.base_url or 'the provider'}",
        f"{num_answers} answers of at most {settings.max_tokens} tokens, temperature {settings.temperature}, "
        f"top_p {settings.top_p}, logprobs {settings.logprobs}, extra {settings.extra or 'nothing'}, {instruction}",
    ]
    return "\n".join([*lines, *(_turn(turn) for turn in Prompting(settings).messages(question))])


def _turn(turn: Message) -> str:
    shown = [printable(part) if isinstance(part, str) else _picture(part) for part in turn.parts]
    return "\n".join([f"--- {turn.role}", *shown])


def _picture(picture: bytes) -> str:
    mime, width, height = look_at(picture)
    digest = hashlib.sha256(picture).hexdigest()[:12]
    return f"[picture: {mime}, {width} x {height}, {len(picture):,} bytes, sha256 {digest}...]"


def what_came_back(answers: Sequence[Answer]) -> str:
    return "\n".join(_answer(answer) for answer in answers)


def _answer(answer: Answer) -> str:
    facts = [
        f"{answer.output_tokens} tokens" + (f" ({answer.thought_tokens} hidden)" if answer.thought_tokens else ""),
        f"${answer.dollars:.6f}",
        f"{answer.seconds:.2f} s",
        *([f"{answer.retries} retries"] if answer.retries else []),
        *([f"{len(answer.logprobs)} log-probabilities"] if answer.logprobs else []),
        *([f"by {printable(answer.model)}"] if answer.model else []),
    ]
    return f"--- answer {answer.index}, {answer.status.value}: {', '.join(facts)}\n{printable(answer.text)}"
