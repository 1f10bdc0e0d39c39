"""A policy and experts that take their time, asked as one group."""

import asyncio

from ekipl_rollout.answer import Answer, AnswerStatus, Message, Question
from ekipl_rollout.ask import ask_everyone
from ekipl_rollout.errands import Errands
from ekipl_rollout.settings import AskSettings

QUESTION = Question("q", (Message("user", ("How many?",)),), step=1)


def question(text, step=1):
    return Question("q", (Message("user", (text,)),), step=step)


class ScriptedExpert:
    """Answers after `seconds`, with `count` answers or an error."""

    def __init__(self, name, seconds=0.0, count=None, error=None):
        self.name, self.seconds, self.count, self.error = name, seconds, count, error
        self.asked, self.answered, self.cancelled = 0, 0, False

    async def answer(self, question, num_answers):
        self.asked += 1
        self.question = question
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        self.answered += 1
        count = num_answers if self.count is None else self.count
        return [Answer(self.name, i, "3", AnswerStatus.FINISHED) for i in range(count)]

    async def close(self): ...


async def policy(seconds=0.0, error=None):
    await asyncio.sleep(seconds)
    if error:
        raise error
    return "policy answers"


async def ask(policy, experts, num_answers, timeout_s=5.0, errands=None, asked=QUESTION, **settings):
    errands = errands or Errands(timeout_s, AskSettings(**settings))
    return await ask_everyone(policy, [(expert, num_answers) for expert in experts], asked, errands)
