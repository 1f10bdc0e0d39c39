"""Gemini, by the Developer API or by Vertex AI, through the google-genai SDK."""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

from ekipl_rollout.answer import AnswerStatus, Message
from ekipl_rollout.bounds import Bounds
from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.experts.features import Wish
from ekipl_rollout.experts.live import LiveExpert
from ekipl_rollout.experts.pictures import Picture
from ekipl_rollout.experts.reply import Choice, Reply, numbers, status_of, token_count
from ekipl_rollout.experts.transport import http_client
from ekipl_rollout.settings import ExpertSettings

DEVELOPER_API = "https://generativelanguage.googleapis.com"
BLOCKED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "IMAGE_SAFETY")
STATUS = {
    "STOP": AnswerStatus.FINISHED,
    "MAX_TOKENS": AnswerStatus.CUT_AT_LENGTH,
    **dict.fromkeys(BLOCKED, AnswerStatus.BLOCKED),
}


class GeminiExpert(LiveExpert):
    """N candidates in one request where the model allows it."""

    def __init__(self, settings: ExpertSettings, bounds: Bounds | None = None):
        from google import genai
        from google.genai import types

        super().__init__(settings, bounds)
        self._types = types
        address = settings.base_url or (vertex_address(settings.location) if settings.project else DEVELOPER_API)
        self._http = http_client(_sdk_httpx(), settings, address)
        # address, mode and version are always given: left out, the SDK takes them from GOOGLE_* in the environment
        default = "v1" if settings.project else "v1beta"
        options = types.HttpOptions(
            base_url=address, api_version=settings.api_version or default, httpx_async_client=self._http
        )
        self._client = genai.Client(http_options=options, **self._credentials())
        try:
            self._config(Wish(1, False, False, ""), None, [])
        except ValueError as error:
            raise SettingsError(f"ekipl.experts[{settings.name}].extra: {error}") from None

    def _credentials(self) -> dict[str, Any]:
        if self.settings.project is None:
            return {"vertexai": False, "api_key": self._secret.reveal()}
        import google.auth

        try:  # here, and not by the SDK: it would wait for the first question
            credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        except google.auth.exceptions.DefaultCredentialsError:
            raise SettingsError(
                f"ekipl.experts[{self.name}] asks Vertex AI, but there are no application default credentials. "
                "Run: gcloud auth application-default login"
            ) from None
        where = {"project": self.settings.project, "location": self.settings.location}
        return {"vertexai": True, "credentials": credentials, **where}

    def _encode(self, messages: Sequence[Message], picture: Callable[[bytes], Picture]) -> tuple[str | None, list]:
        return gemini_contents(messages, picture)

    async def _send(self, payload: tuple[str | None, list], wish: Wish) -> Reply:
        system, contents = payload
        config = self._config(wish, system, contents)
        models = self._client.aio.models
        return read_reply(await models.generate_content(model=self.settings.model, contents=".", config=config))

    def _config(self, wish: Wish, system: str | None, contents: list) -> Any:
        settings, types = self.settings, self._types
        fields = {
            "system_instruction": system,
            "candidate_count": wish.answers,
            "max_output_tokens": settings.max_tokens,
            "temperature": settings.temperature if wish.temperature else None,
            "top_p": settings.top_p if wish.top_p else None,
            "response_logprobs": wish.logprobs or None,
            # on by default in 3.x: a cut answer triggers hidden follow-up calls, and texts come back doubled
            "automatic_continuation": False,
            **settings.extra,
            # Pictures as base64 that was made once for the prompt. Through types.Part the SDK would make it again for
            # each request; `extra_body` takes the place of the `contents` given beside it.
            "http_options": types.HttpOptions(extra_body={"contents": contents}) if contents else None,
        }
        if "automatic_continuation" not in types.GenerateContentConfig.model_fields:  # 2.x, for Python 3.10
            del fields["automatic_continuation"]
        return types.GenerateContentConfig(**fields)

    async def look_up_model(self) -> dict[str, Any]:
        found = await self._client.aio.models.get(model=self.settings.model)
        return {"id": found.name, "description": found.description}

    async def _close(self) -> None:
        await self._http.aclose()


def _sdk_httpx() -> Any:
    """The httpx that the installed google-genai speaks: httpx2 since 3.0, httpx before."""
    return import_module("httpx2" if int(version("google-genai").split(".")[0]) >= 3 else "httpx")


def vertex_address(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def gemini_contents(
    messages: Sequence[Message], picture: Callable[[bytes], Picture]
) -> tuple[str | None, list[dict[str, Any]]]:
    """(system text, contents): Gemini takes system turns as a setting."""

    def shown(part: str | bytes) -> dict[str, Any]:
        if isinstance(part, str):
            return {"text": part}
        sent = picture(part)
        return {"inlineData": {"mimeType": sent.mime, "data": sent.base64}}

    system = "\n".join(
        part for turn in messages if turn.role == "system" for part in turn.parts if isinstance(part, str)
    )
    contents = [
        {"role": "model" if turn.role == "assistant" else "user", "parts": [shown(part) for part in turn.parts]}
        for turn in messages
        if turn.role != "system"
    ]
    return system or None, contents


def read_reply(reply: Any) -> Reply:
    """A reply in plain values. An empty body, `null` and an error with status 200 all look like one without candidates."""
    usage = reply.usage_metadata
    # hidden reasoning is counted apart and billed as output; an answer that is nothing else has no other count
    said, thoughts = (
        token_count(getattr(usage, name, None) or 0) for name in ("candidates_token_count", "thoughts_token_count")
    )
    billed: dict[str, Any] = {
        "input_tokens": token_count(getattr(usage, "prompt_token_count", None)),
        "output_tokens": None if usage is None or said is None or thoughts is None else said + thoughts,
        "thought_tokens": thoughts or 0,
    }
    if not reply.candidates:
        blocked = reply.prompt_feedback is not None and reply.prompt_feedback.block_reason
        failure = (Failure.BLOCKED, "the prompt was blocked") if blocked else (Failure.BAD_REPLY, "no candidates")
        return Reply(problem=ExpertError(*failure, status=200), **billed)
    return Reply(
        [_choice(candidate) for candidate in reply.candidates],
        model=str(reply.model_version or "")[:200],
        request_id=str(reply.response_id or "")[:200],
        **billed,
    )


def _choice(candidate: Any) -> Choice:
    parts = (candidate.content.parts if candidate.content else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    finish = getattr(candidate.finish_reason, "value", candidate.finish_reason)
    chosen = getattr(candidate.logprobs_result, "chosen_candidates", None) or []
    return Choice(
        text,
        status_of(finish, text, STATUS),
        numbers([token.log_probability for token in chosen], float),
        numbers([token.token_id for token in chosen], int),
    )
