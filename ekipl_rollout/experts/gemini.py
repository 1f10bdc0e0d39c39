"""Gemini, through the google-genai SDK."""

import asyncio
import time
from typing import Any

from ekipl_rollout.answer import Answer, AnswerStatus, Question
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.pictures import mime_type
from ekipl_rollout.experts.pricing import share_cost
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.experts.transport import http_client, to_expert_error
from ekipl_rollout.settings import ExpertSettings

BLOCKED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "IMAGE_SAFETY")
STATUS = {
    "STOP": AnswerStatus.FINISHED,
    "MAX_TOKENS": AnswerStatus.CUT_AT_LENGTH,
    **dict.fromkeys(BLOCKED, AnswerStatus.BLOCKED),
}


class GeminiExpert:
    """One long-lived client; N candidates in one request."""

    def __init__(self, settings: ExpertSettings):
        from google import genai
        from google.genai import types

        self.settings, self.name, self._types = settings, settings.name, types
        self._secret = Secret.from_env(settings.api_key_env)
        self._gate = asyncio.Semaphore(settings.max_in_flight)
        self._http = http_client(_sdk_httpx(), settings.max_in_flight)
        options = types.HttpOptions(base_url=settings.base_url, api_version="v1beta", httpx_async_client=self._http)
        self._client = genai.Client(api_key=self._secret.reveal(), vertexai=False, http_options=options)

    async def answer(self, question: Question, num_answers: int) -> list[Answer]:
        types, settings = self._types, self.settings
        config = {
            "candidate_count": num_answers,
            "max_output_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            # on by default in 3.x: a cut answer triggers hidden follow-up calls, and texts come back doubled
            "automatic_continuation": False,
        }
        known = types.GenerateContentConfig.model_fields
        contents, system = gemini_contents(types, question, settings.instruction)
        started = time.monotonic()
        try:
            async with self._gate:
                reply = await self._client.aio.models.generate_content(
                    model=settings.model,
                    contents=contents,
                    config=types.GenerateContentConfig(
                        system_instruction=system, **{k: v for k, v in config.items() if k in known}
                    ),
                )
        except Exception as error:
            raise to_expert_error(error, self._secret) from None
        return read_reply(reply, num_answers, settings, time.monotonic() - started)

    async def close(self) -> None:
        await self._http.aclose()


def _sdk_httpx() -> Any:
    """The httpx that the installed google-genai speaks: httpx2 since 3.0, httpx before."""
    from importlib import import_module
    from importlib.metadata import version

    return import_module("httpx2" if int(version("google-genai").split(".")[0]) >= 3 else "httpx")


def gemini_contents(types: Any, question: Question, instruction: str | None) -> tuple[list[Any], str | None]:
    """Contents, and the system text apart: Gemini takes it as a setting."""
    system = " ".join(str(p) for turn in question.messages if turn.role == "system" for p in turn.parts)
    contents = []
    for turn in question.messages:
        if turn.role != "system":
            parts = [
                types.Part.from_bytes(data=part, mime_type=mime_type(part))
                if isinstance(part, bytes)
                else types.Part.from_text(text=part)
                for part in turn.parts
            ]
            contents.append(types.Content(role="model" if turn.role == "assistant" else "user", parts=parts))
    if instruction and contents:
        contents[-1].parts.append(types.Part.from_text(text=f"\n{instruction}"))
    return contents, system or None


def read_reply(reply: Any, num_answers: int, settings: ExpertSettings, seconds: float) -> list[Answer]:
    """Answers of one reply. An empty body, `null` and an error with status 200 all look like a reply without candidates."""
    candidates = getattr(reply, "candidates", None)
    if not candidates:
        feedback = getattr(reply, "prompt_feedback", None)
        if feedback is not None and feedback.block_reason:
            raise ExpertError(Failure.BLOCKED, "the prompt was blocked", 200)
        raise ExpertError(Failure.BAD_REPLY, "no candidates", 200)
    usage = reply.usage_metadata
    input_tokens = (usage.prompt_token_count or 0) if usage else 0
    # hidden reasoning is counted apart and billed as output
    output_tokens = ((usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)) if usage else 0
    tokens, dollars = share_cost(settings, input_tokens, output_tokens, len(candidates))
    answers = []
    for index, candidate in enumerate(candidates[:num_answers]):
        parts = (candidate.content.parts if candidate.content else None) or []
        text = "".join(part.text for part in parts if part.text and not part.thought)
        finish = getattr(candidate.finish_reason, "value", candidate.finish_reason) or ""
        status = STATUS.get(finish, AnswerStatus.EMPTY)
        if not text and status.has_text:
            status = AnswerStatus.EMPTY
        answers.append(Answer(settings.name, index, text, status, tokens, dollars, seconds))
    return answers
