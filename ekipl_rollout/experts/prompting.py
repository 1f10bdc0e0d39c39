"""What an expert is told: the training prompt, few-shot examples before it and an instruction after it."""

from pathlib import Path

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.settings import ExampleSettings, ExpertSettings


class Prompting:
    """Turns a question into the messages of one expert. The files of examples are read once."""

    def __init__(self, settings: ExpertSettings):
        self._instruction = settings.instruction
        self._examples = tuple(turn for example in settings.examples for turn in _turns(example))

    @property
    def example_pictures(self) -> list[bytes]:
        return [part for turn in self._examples for part in turn.parts if isinstance(part, bytes)]

    def messages(self, question: Question) -> tuple[Message, ...]:
        """System turns, examples, the question's turns, and the instruction as the last part of the last of them."""
        system = tuple(turn for turn in question.messages if turn.role == "system")
        turns = [turn for turn in question.messages if turn.role != "system"]
        if self._instruction and turns:
            turns[-1] = Message(turns[-1].role, (*turns[-1].parts, f"\n{self._instruction}"))
        return (*system, *self._examples, *turns)


def _turns(example: ExampleSettings) -> tuple[Message, Message]:
    pictures = tuple(Path(path).expanduser().read_bytes() for path in example.pictures)
    return Message("user", (*pictures, example.question)), Message("assistant", (example.answer,))
