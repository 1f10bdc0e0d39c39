"""What the tests of the record share: an expert to ask, questions, and a live expert that counts."""

import asyncio
import json
import zlib

from ekipl_rollout.answer import Answer, AnswerStatus, Message, Question
from ekipl_rollout.record.database import open_to_read, open_to_write, transaction
from ekipl_rollout.record.key import key_of
from ekipl_rollout.record.row import to_row
from ekipl_rollout.record.scan import scan
from ekipl_rollout.record.tables import keep_rows
from ekipl_rollout.settings import ExpertSettings

EXPERT = ExpertSettings(name="gpt", kind="openai", model="m", base_url="http://127.0.0.1:1/v1")


def question(number=0):
    return Question(f"q{number}", (Message("user", (b"picture %d" % number, f"question {number}?")),))


def answer(text, index=0, **changes):
    return Answer(**{"source": "gpt", "index": index, "text": text, "status": AnswerStatus.FINISHED, **changes})


def key(number=0, settings=EXPERT):
    return key_of(settings, question(number))


def texts(answers):
    return [a.text for a in answers]


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


def fill(path, questions=3, answers=2, source="gpt", kept_at=1000.0, settings=EXPERT, replace=False, **changes):
    db = open_to_write(path)
    with transaction(db):
        for number in range(questions):
            rows = {
                i: to_row(answer(f"{source} {number} {i}", source=source, dollars=0.25, **changes), kept_at)
                for i in range(answers)
            }
            keep_rows(db, key_of(settings, question(number)), rows, replace)
    db.close()
    return path


def content(path):
    """Everything in a record, numbers of questions apart."""
    db = open_to_read(path)
    found = {e.digest: (e.asked, e.answers, e.superseded) for e in scan(db)}
    db.close()
    return found


def texts_in(path):
    db = open_to_read(path)
    found = sorted(json.loads(zlib.decompress(row.value))["text"] for e in scan(db) for _, row in e.answers)
    db.close()
    return found
