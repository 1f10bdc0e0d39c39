"""OpenAI, and every server that speaks its chat completions (vLLM, Azure v1, OpenRouter, ...), through the openai SDK."""

import asyncio
import base64
import time
from typing import Any

from ekipl_rollout.answer import Answer, AnswerStatus, Question
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.pictures import mime_type
from ekipl_rollout.experts.pricing import share_cost
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.experts.transport import http_client, to_expert_error
from ekipl_rollout.settings import ExpertSettings

STATUS = {
    "stop": AnswerStatus.FINISHED,
    "length": AnswerStatus.CUT_AT_LENGTH,
    "content_filter": AnswerStatus.BLOCKED,
}


class ChatServerExpert:
    """One long-lived client; N answers in one request, so that pictures travel and are billed once."""

    def __init__(self, settings: ExpertSettings):
        import httpx2
        import openai

        self.settings, self.name = settings, settings.name
        self._secret = Secret.from_env(settings.api_key_env)
        self._gate = asyncio.Semaphore(settings.max_in_flight)
        # base_url and api_key are always given: left out, the SDK would take them from OPENAI_* in the environment and
        # could send OpenAI's key to another server. The same holds for the ids of organization and project.
        self._client = openai.AsyncOpenAI(
            api_key=self._secret.reveal(),
            base_url=settings.base_url or "https://api.openai.com/v1",
            max_retries=0,
            http_client=http_client(httpx2, settings.max_in_flight),
        )
        if settings.base_url is not None:
            self._client.organization = self._client.project = None

    async def answer(self, question: Question, num_answers: int) -> list[Answer]:
        messages = chat_messages(question, self.settings.instruction)
        started = time.monotonic()
        try:
            async with self._gate:
                reply = await self._client.chat.completions.create(
                    model=self.settings.model,
                    messages=messages,
                    n=num_answers,
                    temperature=self.settings.temperature,
                    top_p=self.settings.top_p,
                    **{self.settings.token_param: self.settings.max_tokens},
                )
        except Exception as error:
            raise to_expert_error(error, self._secret) from None
        return read_reply(reply, num_answers, self.settings, time.monotonic() - started)

    async def close(self) -> None:
        await self._client.close()


def chat_messages(question: Question, instruction: str | None) -> list[dict[str, Any]]:
    """The question as chat messages; the instruction ends the last user turn."""
    messages = []
    for turn in question.messages:
        content: list[dict[str, Any]] = []
        for part in turn.parts:
            if isinstance(part, bytes):
                url = f"data:{mime_type(part)};base64,{base64.b64encode(part).decode('ascii')}"
                content.append({"type": "image_url", "image_url": {"url": url}})
            else:
                content.append({"type": "text", "text": part})
        messages.append({"role": turn.role, "content": content})
    if instruction and messages:
        messages[-1]["content"].append({"type": "text", "text": f"\n{instruction}"})
    return messages


def read_reply(reply: Any, num_answers: int, settings: ExpertSettings, seconds: float) -> list[Answer]:
    """Answers of one reply. The SDK does not check a 200: it can be a str, None, or lack its choices."""
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise ExpertError(Failure.BAD_REPLY, f"no choices in a reply of type {type(reply).__name__}", 200)
    usage = getattr(reply, "usage", None)
    input_tokens = getattr(usage, "prompt_tokens", None) or 0
    output_tokens = getattr(usage, "completion_tokens", None) or 0
    tokens, dollars = share_cost(settings, input_tokens, output_tokens, len(choices))
    answers = []
    for index, choice in enumerate(choices[:num_answers]):
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None) or ""
        status = STATUS.get(getattr(choice, "finish_reason", None) or "", AnswerStatus.EMPTY)
        if getattr(message, "refusal", None):
            status = AnswerStatus.REFUSED
        elif not text and status.has_text:
            status = AnswerStatus.EMPTY
        answers.append(Answer(settings.name, index, text, status, tokens, dollars, seconds))
    return answers
