"""What the tests of the record share: an expert to ask, questions, and a live expert that counts."""

import asyncio

from ekipl_rollout.answer import Answer, AnswerStatus, Message, Question
from ekipl_rollout.record.key import key_of
from ekipl_rollout.settings import ExpertSettings

EXPERT = ExpertSettings(name="gpt", kind="openai", model="m", base_url="http://127.0.0.1:1/v1")


def question(number=0):
    return Question(f"q{number}", (Message("user", (b"picture %d" % number, f"question {number}?")),))


def answer(text, index=0, **changes):
    return Answer(**{"source": "gpt", "index": index, "text": text, "status": AnswerStatus.FINISHED, **changes})


def key(number=0, settings=EXPERT):
    return key_of(settings, question(number))


class CountingExpert:
    """Says "<question id> <serial number>"; takes `seconds`; gives at most `most` answers a request."""

    name = "gpt"

    def __init__(self, seconds=0.0, most=99, error=None):
        self.seconds, self.most, self.error = seconds, most, error
        self.requests, self.answers, self.closed = 0, 0, False

    async def answer(self, question, num_answers):
        self.requests += 1
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        said = []
        for _ in range(min(num_answers, self.most)):
            said.append(answer(f"{question.id} {self.answers}", len(said), dollars=0.5, seconds=self.seconds))
            self.answers += 1
        return said

    async def close(self):
        self.closed = True
