"""Small things that the tests of experts share."""

import io
from dataclasses import dataclass, field, replace

from PIL import Image

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.bounds import Permit, Unbounded
from ekipl_rollout.errors import ExpertError
from ekipl_rollout.experts.build import EXPERTS
from ekipl_rollout.experts.features import Features
from ekipl_rollout.experts.live import ExpertStats, LiveExpert
from ekipl_rollout.settings import ExpertSettings, RetrySettings

KEY = "sk-canary-0123456789"
KINDS = ("openai", "gemini")
IMPATIENT = RetrySettings(attempts=2, first_wait_s=0.02)


def picture(color: str = "red", size: tuple[int, int] = (4, 4), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def question(*parts: str | bytes, **changes) -> Question:
    return Question("q1", (Message("user", parts or (picture(), "How many cubes?")),), **changes)


def expert_settings(kind: str, url: str, model: str = "m", **changes) -> ExpertSettings:
    """An expert at a server on loopback. Its key is in TEST_KEY."""
    base_url = f"{url}/v1" if kind == "openai" else url
    values = {"name": "gpt", "kind": kind, "model": model, "base_url": base_url, "api_key_env": "TEST_KEY"}
    return ExpertSettings(**{**values, "retry": IMPATIENT, **changes})


def client(settings: ExpertSettings, bounds=None) -> LiveExpert:
    return EXPERTS[settings.kind](settings, bounds)


def become(expert: LiveExpert, model: str, bounds=None, **changes) -> LiveExpert:
    """The same client as another expert that has learned nothing: building one takes a tenth of a second."""
    expert.settings = replace(expert.settings, model=model, **changes)
    expert.features, expert.stats, expert._bounds = Features(expert.settings), ExpertStats(), bounds or Unbounded()
    return expert


async def ask(settings: ExpertSettings, count: int = 2, asked: Question | None = None, bounds=None):
    expert = client(settings, bounds)
    try:
        return await expert.answer(asked or question(), count)
    finally:
        await expert.close()


@dataclass
class CountingBounds:
    """Bounds that let everything pass and remember it."""

    admitted: list[Permit] = field(default_factory=list)
    settled: dict[int, tuple[int, float, ExpertError | None]] = field(default_factory=dict)
    steps: list[int | None] = field(default_factory=list)
    refusal: ExpertError | None = None

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        if self.refusal is not None:
            raise self.refusal
        permit = Permit(len(self.admitted), expert, tokens, dollars)
        self.admitted.append(permit)
        self.steps.append(step)
        return permit

    async def settle(self, permit: Permit, *, tokens: int = 0, dollars: float = 0.0, error: ExpertError | None = None):
        assert permit.id not in self.settled, "settled twice"
        self.settled[permit.id] = (tokens, dollars, error)

    @property
    def open(self) -> list[Permit]:
        return [permit for permit in self.admitted if permit.id not in self.settled]
