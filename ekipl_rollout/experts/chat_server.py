"""OpenAI, Azure, and every server that speaks their chat completions (vLLM, OpenRouter, ...), through the openai SDK."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from ekipl_rollout.answer import AnswerStatus, Message
from ekipl_rollout.bounds import Bounds
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.features import Wish
from ekipl_rollout.experts.live import LiveExpert
from ekipl_rollout.experts.pictures import Picture
from ekipl_rollout.experts.reply import Choice, Reply, numbers, status_of, token_count
from ekipl_rollout.experts.transport import http_client
from ekipl_rollout.settings import ExpertSettings

OPENAI = "https://api.openai.com/v1"
STATUS = {
    "stop": AnswerStatus.FINISHED,
    "length": AnswerStatus.CUT_AT_LENGTH,
    "content_filter": AnswerStatus.BLOCKED,
    "error": AnswerStatus.EMPTY,  # OpenRouter: the server behind it failed halfway
}


class ChatServerExpert(LiveExpert):
    """N answers in one request; the body is JSON once for each prompt, not once for each request."""

    def __init__(self, settings: ExpertSettings, bounds: Bounds | None = None):
        import httpx2
        import openai

        super().__init__(settings, bounds)
        address = settings.base_url or OPENAI
        common: dict[str, Any] = {
            "api_key": self._secret.reveal(),
            "max_retries": 0,  # one policy: retry.py
            "http_client": http_client(httpx2, settings, address),
        }
        self._path, self._model_path = "/chat/completions", f"/models/{quote(settings.model)}"
        # address and key are always given: left out, the SDK would take them from OPENAI_* in the environment and could
        # send OpenAI's key to another server. The same holds for organization, project and extra headers.
        if settings.api_version:  # Azure's deployments have the model in the path, which the SDK writes for JSON only
            self._client: openai.AsyncOpenAI = openai.AsyncAzureOpenAI(
                azure_endpoint=address, api_version=settings.api_version, **common
            )
            self._path = f"/deployments/{quote(settings.model)}/chat/completions"
        else:
            self._client = openai.AsyncOpenAI(base_url=address, **common)
        if settings.base_url is not None:
            self._client.organization = self._client.project = None
            self._client._custom_headers = {}

    def _encode(self, messages: Sequence[Message], picture: Callable[[bytes], Picture]) -> bytes:
        # ASCII on purpose: a lone surrogate in a prompt is no UTF-8, but it is JSON
        return json.dumps(chat_messages(messages, picture), separators=(",", ":")).encode("ascii")

    async def _send(self, payload: bytes, wish: Wish) -> Reply:
        from openai.types.chat import ChatCompletion

        rest = json.dumps(self._fields(wish), separators=(",", ":")).encode("ascii")
        body = b'{"messages":' + payload + b"," + rest[1:]
        headers = {"content-type": "application/json"}
        return read_reply(
            await self._client.post(self._path, cast_to=ChatCompletion, content=body, options={"headers": headers})
        )

    def _fields(self, wish: Wish) -> dict[str, Any]:
        """Everything of the request but the messages."""
        settings = self.settings
        fields = {
            **settings.extra,
            "model": settings.model,
            "n": wish.answers,
            wish.token_param: settings.max_tokens,
            "temperature": settings.temperature if wish.temperature else None,
            "top_p": settings.top_p if wish.top_p else None,
            "logprobs": wish.logprobs or None,
            "return_token_ids": wish.token_ids or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    async def look_up_model(self) -> dict[str, Any]:
        """OpenAI tells the shutdown date of a model here; many compatible servers do not have the address."""
        reply = await self._client.get(self._model_path, cast_to=object)
        return reply if isinstance(reply, dict) else {}

    async def _close(self) -> None:
        await self._client.close()


def chat_messages(messages: Sequence[Message], picture: Callable[[bytes], Picture]) -> list[dict[str, Any]]:
    """Turns as chat messages, pictures as data URLs in their place."""

    def content(part: str | bytes) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        shown = picture(part)
        return {"type": "image_url", "image_url": {"url": f"data:{shown.mime};base64,{shown.base64}"}}

    return [{"role": turn.role, "content": [content(part) for part in turn.parts]} for turn in messages]


def read_reply(reply: Any) -> Reply:
    """A reply in plain values. The SDK does not check a 200: it can be a str, None, or lack its choices."""
    choices = getattr(reply, "choices", None)
    choices = (
        [c for c in choices if hasattr(getattr(c, "message", None), "content")] if isinstance(choices, list) else []
    )
    usage = getattr(reply, "usage", None)
    billed: dict[str, Any] = {
        "input_tokens": token_count(getattr(usage, "prompt_tokens", None)),
        "output_tokens": token_count(getattr(usage, "completion_tokens", None)),
    }
    if not choices:
        problem = ExpertError(Failure.BAD_REPLY, f"no choices in a reply of type {type(reply).__name__}", 200)
        return Reply(problem=problem, **billed)
    details = getattr(usage, "completion_tokens_details", None)
    return Reply(
        [_choice(choice) for choice in choices],
        thought_tokens=token_count(getattr(details, "reasoning_tokens", None)) or 0,
        model=str(getattr(reply, "model", None) or "")[:200],
        request_id=str(getattr(reply, "_request_id", None) or getattr(reply, "id", None) or "")[:200],
        **billed,
    )


def _choice(choice: Any) -> Choice:
    message = choice.message
    text = message.content if isinstance(message.content, str) else ""
    status = status_of(getattr(choice, "finish_reason", None), text, STATUS)
    if getattr(message, "refusal", None):
        status = AnswerStatus.REFUSED
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    logprobs = [getattr(token, "logprob", None) for token in tokens] if isinstance(tokens, list) else None
    ids = getattr(choice, "token_ids", None)  # vLLM
    return Choice(text, status, numbers(logprobs, float), numbers(ids if isinstance(ids, list) else None, int))
