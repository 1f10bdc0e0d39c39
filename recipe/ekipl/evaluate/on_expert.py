"""An expert of the configuration answers: the same clients, record, rates and budget as in training."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from ekipl_rollout.answer import Answer, Question
from ekipl_rollout.bounds.governor import open_governor
from ekipl_rollout.errors import ExpertError, SettingsError
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.settings import EkiplSettings, ExpertSettings
from recipe.ekipl.compose import compose_config
from recipe.ekipl.evaluate.ask import Given, Wanted
from recipe.ekipl.evaluate.on_vllm import Sampling

logger = logging.getLogger(__name__)


def read_expert(
    name: str, config_name: str, overrides: Sequence[str], out: Path
) -> tuple[EkiplSettings, ExpertSettings]:
    """The `ekipl:` block and the expert called `name` in it. Answers are recorded in `out` unless the config says where."""
    config = compose_config(config_name, overrides)
    config.ekipl.run_dir = str(out)
    settings = EkiplSettings.from_config(OmegaConf.to_container(config.ekipl, resolve=True), check=False)
    experts = {expert.name: expert for expert in settings.experts}
    if name not in experts:
        known = ", ".join(experts) or "none; add experts=<name of a file in recipe/ekipl/config/experts>"
        raise SettingsError(f"--expert {name} is not among the configured experts: {known}.")
    settings = replace(settings, experts=(experts[name],))
    if problems := settings.problems():
        raise SettingsError(*problems)
    return settings, experts[name]


def with_sampling(expert: ExpertSettings, sampling: Sampling) -> ExpertSettings:
    return replace(expert, temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens)


class ExpertAnswerer:
    """One expert and the event loop that asks it."""

    def __init__(self, settings: EkiplSettings, expert: ExpertSettings):
        self._settings, self._chosen = replace(settings, experts=(expert,)), expert
        self._loop = asyncio.new_event_loop()
        self._expert: Expert = self._loop.run_until_complete(self._build())

    async def _build(self) -> Expert:  # SDK clients belong to the loop that uses them
        self._bounds = open_governor(self._settings)
        (expert,) = build_experts([self._chosen], self._settings.record, self._bounds)
        return expert

    def answer(self, wanted: Sequence[Wanted]) -> list[Given | None]:
        """As many rows at once as the expert takes. What it fails to give is asked for next time."""
        numbers: dict[str, int] = {}
        for row, sample in wanted:
            # answers are numbered from 0, and a record returns those that it has: so ask from the first on
            numbers[row.id] = max(numbers.get(row.id, 0), sample + 1)
        questions = {row.id: row.question for row, _ in wanted}
        answers = self._loop.run_until_complete(self._ask_all(questions, numbers))
        return [_given(answers[row.id].get(sample)) for row, sample in wanted]

    async def _ask_all(self, questions: dict[str, Question], numbers: dict[str, int]) -> dict[str, dict[int, Answer]]:
        at_once = asyncio.Semaphore(self._chosen.max_in_flight)
        came = await asyncio.gather(*(self._ask(at_once, q, numbers[row]) for row, q in questions.items()))
        return {row: {answer.index: answer for answer in answers} for row, answers in zip(questions, came, strict=True)}

    async def _ask(self, at_once: asyncio.Semaphore, question: Question, number: int) -> list[Answer]:
        """No deadline: nobody waits but the evaluation, and each request has a time limit of its own."""
        async with at_once:
            try:
                return await self._expert.answer(question, number)
            except ExpertError as error:
                logger.warning("expert %s, question %s: %s", self._chosen.name, question.id, error)
                return []

    async def _end(self) -> None:
        await self._expert.close()
        await self._bounds.close()

    def close(self) -> None:
        self._loop.run_until_complete(self._end())
        self._loop.close()


def _given(answer: Answer | None) -> Given | None:
    if answer is None:
        return None
    return Given(answer.text, answer.status.value, answer.output_tokens, answer.dollars)
