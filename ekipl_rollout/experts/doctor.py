"""Checks experts for real, before a long run finds out: a handful of small requests to each.

It draws a picture, asks about it once, and then for two answers with log-probabilities. What a model refuses is
learned by the same client that will be used in training.
"""

import asyncio
import io
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ekipl_rollout.answer import Answer, Message, Question
from ekipl_rollout.errors import EkiplError, ExpertError, Failure
from ekipl_rollout.experts.build import expert_class
from ekipl_rollout.experts.live import LiveExpert
from ekipl_rollout.inert import printable
from ekipl_rollout.settings import ExpertSettings

OK, NOTE, FAIL, UNKNOWN = "ok", "note", "FAIL", "-"
FORMAT = re.compile(r"\s*<think>.{1,20000}?</think>\s*<answer>.{1,2000}?</answer>\s*", re.DOTALL)
QUESTION = "How many red squares are in the picture?"
SQUARES = 3


@dataclass
class Check:
    """One line of the table."""

    name: str
    result: str
    """ok | note | FAIL | - (could not be checked)"""

    says: str


@dataclass
class Report:
    """All about one expert."""

    expert: str
    model: str
    checks: list[Check] = field(default_factory=list)
    dollars: float = 0.0
    """Spent on these checks, at the known price."""

    def add(self, name: str, result: str, says: str) -> None:
        self.checks.append(Check(name, result, says))

    @property
    def healthy(self) -> bool:
        return all(check.result != FAIL for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "healthy": self.healthy}


async def examine_all(experts: Sequence[ExpertSettings]) -> list[Report]:
    return list(await asyncio.gather(*(examine(settings) for settings in experts)))


async def examine(settings: ExpertSettings) -> Report:
    """Everything that can be known about one expert with a few small requests. Raises nothing an expert can cause."""
    report = Report(settings.name, settings.model)
    _check_settings(settings, report)
    if not report.healthy:
        return report
    retry = replace(settings.retry, attempts=min(settings.retry.attempts, 2))
    probing = replace(settings, logprobs=True, retry=retry, request_timeout_s=min(settings.request_timeout_s, 60.0))
    try:
        expert = expert_class(settings.kind)(probing)
    except EkiplError as error:
        report.add("client", FAIL, str(error))
        return report
    try:
        await _check_requests(expert, report)
        await _check_model_page(expert, report)
    finally:
        await expert.close()
    return report


def _check_settings(settings: ExpertSettings, report: Report) -> None:
    problems = settings.problems()
    for problem in problems:
        report.add("settings", FAIL, problem)
    if not problems:
        where = settings.api_key_env or settings.api_key_file
        default = "default credentials are used" if settings.project else "no key: a server of your own"
        report.add("key", OK if settings.has_key else NOTE, f"{where} is set" if where else default)
    price = settings.price
    if price is None:
        known = "Set dollars_per_million_input and _output; for one that costs nothing prices_as_of alone."
        report.add("price", FAIL, f"unknown, so that no budget can hold. {known}")
    else:
        as_of = f", as of {price.read}" if price.read else ""
        report.add("price", OK, f"${price.input:g} in, ${price.output:g} out a million tokens{as_of}")
    for warning in settings.warnings():
        report.add("warning", NOTE, warning)


async def _check_requests(expert: LiveExpert, report: Report) -> None:
    started = time.monotonic()
    answers, error = await _ask(expert, _question(with_picture=True), 1)
    if error is not None and error.failure is Failure.BAD_REQUEST:
        without, still = await _ask(expert, _question(with_picture=False), 1)
        report.add(
            "picture",
            FAIL,
            "refused, while the same question without it is " + ("refused too" if still else "answered"),
        )
        answers = answers + without
    if error is not None:
        report.add(*_blame(error))
        return
    report.add("reachable", OK, f"answered in {time.monotonic() - started:.1f} s")
    report.add("model", OK, f"answered by {printable(answers[0].model, keep='') or 'a server that does not say'}")
    report.add("picture", OK, "accepted")
    more, error = await _ask(expert, _question(with_picture=True), 2)
    _check_features(expert, [*answers, *more], error, report)
    _check_format([*answers, *more], report)
    report.dollars = sum(answer.dollars for answer in (*answers, *more))


def _check_features(expert: LiveExpert, answers: list[Answer], error: ExpertError | None, report: Report) -> None:
    refused = expert.features.refused
    if error is not None and not expert.features.several_proven:
        report.add("several answers", UNKNOWN, str(error))
    elif expert.features.several_proven:
        report.add("several answers", OK, "in one request")
    else:
        report.add(
            "several answers", NOTE, f"one a request: {refused.get('answers', 'one came where two were asked for')}"
        )
    if any(answer.logprobs for answer in answers):
        report.add("log-probabilities", OK, "come with the answers")
    else:
        report.add("log-probabilities", NOTE, f"none: {refused.get('logprobs', 'asked for, and not sent')}")
    for name in sorted(set(refused) - {"answers", "logprobs"}):
        report.add(name, NOTE, f"left out or renamed from now on: {refused[name]}")


def _check_format(answers: list[Answer], report: Report) -> None:
    followed = [bool(FORMAT.fullmatch(answer.text)) for answer in answers]
    right = [f"<answer>{SQUARES}</answer>" in re.sub(r"\s", "", answer.text) for answer in answers]
    says = f"{sum(followed)} of {len(answers)} answers wear <think> and <answer>; {sum(right)} are right"
    report.add("format", OK if all(followed) else NOTE if any(followed) else FAIL, says)


async def _check_model_page(expert: LiveExpert, report: Report) -> None:
    """What the provider says about the model. Many servers say nothing: that is no fault."""
    try:
        page = await asyncio.wait_for(expert.look_up_model(), 30)
    except Exception:  # not ExpertError: nothing was asked, and nothing depends on it
        return
    if page.get("shutdown_date"):
        day = printable(str(page["shutdown_date"])[:40], keep="")
        report.add("shutdown", NOTE, f"the provider switches {expert.settings.model} off on {day}")


_NAMES = {
    Failure.UNAUTHORIZED: "key",
    Failure.NOT_FOUND: "model",
    Failure.OUT_OF_QUOTA: "quota",
    Failure.RATE_LIMITED: "rate",
    Failure.BAD_REQUEST: "request",
}


def _blame(error: ExpertError) -> tuple[str, str, str]:
    return _NAMES.get(error.failure, "reachable"), FAIL, str(error)


async def _ask(expert: LiveExpert, question: Question, count: int) -> tuple[list[Answer], ExpertError | None]:
    try:
        return await expert.answer(question, count), None
    except ExpertError as error:
        return [], error


def _question(with_picture: bool) -> Question:
    return Question("doctor", (Message("user", (*([_drawing()] if with_picture else []), QUESTION)),))


def _drawing() -> bytes:
    """224 x 224, white, with three red squares."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (224, 224), "white")
    for i in range(SQUARES):
        ImageDraw.Draw(image).rectangle((20 + 70 * i, 80, 60 + 70 * i, 120), "red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def render(reports: Sequence[Report]) -> str:
    """The table for people."""
    lines = []
    for report in reports:
        state = "healthy" if report.healthy else "NOT USABLE AS IT IS"
        lines.append(f"{report.expert} ({report.model}): {state}; this examination cost ${report.dollars:.4f}")
        lines += [f"  {check.result:<5} {check.name:<18} {check.says}" for check in report.checks]
    return "\n".join(lines)
