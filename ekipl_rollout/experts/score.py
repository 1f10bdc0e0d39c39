"""log pi_j(o): the log-probability of somebody's answer under a vLLM expert, pictures included.

Three calls that are vLLM's own and no part of OpenAI's API (vLLM 0.24.0):

    POST /v1/chat/completions/render   the question as the expert is asked it -> token ids, and the pictures' features
    POST /tokenize                     the answer -> the expert's token ids
    POST /inference/v1/generate        both, one after the other -> log-probability of each token of the prompt

Token ids and not text go in, so that what is scored is what was tokenised. An answer of another model is scored in the
tokens that the expert's tokenizer makes of it, ended by the expert's own end token where the answer was finished.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from ekipl_rollout.answer import Answer, AnswerStatus, Question
from ekipl_rollout.experts.chat_server import chat_messages
from ekipl_rollout.experts.pictures import encode
from ekipl_rollout.experts.prompting import Prompting
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.experts.transport import http_client
from ekipl_rollout.settings import ExpertSettings

PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Given:
    """An answer to be scored."""

    text: str
    finished: bool
    """False for one that was cut at the length limit: it has no end token."""


class Scorer:
    """Scores under one expert. Built in the loop that uses it."""

    def __init__(self, settings: ExpertSettings):
        import httpx2

        self.name, self._settings, self._prompting = settings.name, settings, Prompting(settings)
        self._root = str(settings.base_url).rstrip("/").removesuffix("/v1")
        self._client = http_client(httpx2, settings, self._root)
        self._secret = Secret.of(settings) if settings.has_key else None
        self._end_token: int | None = None

    def learn_end_token(self, answers: Sequence[Answer]) -> None:
        """vLLM's token ids of a finished answer end with its end token."""
        for answer in answers:
            if answer.source == self.name and answer.status is AnswerStatus.FINISHED and answer.token_ids:
                self._end_token = answer.token_ids[-1]

    async def log_probabilities(self, question: Question, answers: Sequence[Given]) -> list[float | None]:
        """One for each of `answers`, in nats; None where the server did not tell, whatever the reason."""
        try:
            with anyio.fail_after(self._settings.request_timeout_s):
                prompt = await self._call("/v1/chat/completions/render", {"messages": self._messages(question)})
                scores = (self._score(prompt, answer) for answer in answers)
                found = await asyncio.gather(*scores, return_exceptions=True)
                return [None if isinstance(score, BaseException) else score for score in found]
        except Exception:  # a server of one's own can fail in any way, and costs these rows and nothing else
            return [None] * len(answers)

    async def close(self) -> None:
        await self._client.aclose()

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        most = self._settings.max_pixels
        return chat_messages(
            self._prompting.messages(question), lambda picture: encode(question.encoded, picture, most)
        )

    async def _score(self, prompt: dict[str, Any], answer: Given) -> float | None:
        """None for a finished answer as long as the expert's end token is not known."""
        told = await self._call("/tokenize", {"prompt": answer.text, "add_special_tokens": False})
        ids = [int(token) for token in told["tokens"]]
        if answer.finished:
            if self._end_token is None:  # the score would lack what the expert's own sum has
                return None
            ids.append(self._end_token)
        sampling = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
        asked = {
            "token_ids": prompt["token_ids"] + ids,
            "features": prompt.get("features"),
            "sampling_params": sampling,
        }
        reply = await self._call("/inference/v1/generate", asked)
        return read_score(reply, len(prompt["token_ids"]), ids)

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._secret.reveal()}"} if self._secret else {}
        reply = await self._client.post(
            self._root + path, json={"model": self._settings.model, **body}, headers=headers
        )
        reply.raise_for_status()
        return reply.json()


async def can_score(settings: ExpertSettings) -> bool:
    """True when the expert's server tokenises as vLLM's does."""
    scorer = Scorer(settings)
    try:
        with anyio.fail_after(PROBE_SECONDS):
            return "tokens" in await scorer._call("/tokenize", {"prompt": "a", "add_special_tokens": False})
    except Exception:  # whatever it is, it does not score
        return False
    finally:
        await scorer.close()


def read_score(reply: dict[str, Any], prompt_length: int, ids: Sequence[int]) -> float | None:
    """Sum over the answer's tokens; None unless every one of them has a finite log-probability."""
    told = (reply.get("prompt_logprobs") or [])[prompt_length:]
    if not ids or len(told) != len(ids):
        return None
    found = [(entry or {}).get(str(token), {}).get("logprob") for entry, token in zip(told, ids, strict=True)]
    numbers = [value for value in found if isinstance(value, (int, float)) and math.isfinite(value)]
    return math.fsum(numbers) if len(numbers) == len(ids) else None
