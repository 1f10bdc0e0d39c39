"""Every way in which a provider is known to fail, in both protocols: what a server does with one request.

`FAULTS` is the menu. fault_server.py chooses by the model's name; docs/experts.md says what our clients make of each.
"""

import asyncio
import contextlib
import gzip
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from tests.rollout.provider import Call, Wire, answer

GEMINI_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
Fault = Callable[[Call, Wire], Awaitable[None]]


def refuse(
    status: int,
    message: str = "refused for a test",
    code: str = "",
    headers: dict[str, str] | None = None,
    details: Any = None,
) -> Fault:
    """An error as the provider words it. It echoes the key it was sent: bad servers do."""

    async def fault(call: Call, wire: Wire) -> None:
        key = call.headers.get("authorization") or call.headers.get("x-goog-api-key") or call.headers.get("api-key")
        text = f"{message} (you sent {key})"
        if call.gemini:
            error = {"code": status, "message": text, "status": GEMINI_STATUS.get(status, "UNAVAILABLE")}
            error |= {"details": details} if details else {}
        else:
            error = {"message": text, "type": "error", "param": None, "code": code or str(status)}
        await wire.json({"error": error}, status, **(headers or {}))

    return fault


def say(body: bytes, kind: str = "application/json", status: int = 200, **headers: str) -> Fault:
    async def fault(call: Call, wire: Wire) -> None:
        await wire.send(body, status, kind, **headers)

    return fault


def changed(openai: Callable[[dict], Any], gemini: Callable[[dict], Any]) -> Fault:
    """A healthy reply, spoilt in place."""

    async def fault(call: Call, wire: Wire) -> None:
        reply = answer(call)
        (gemini if call.gemini else openai)(reply)
        await wire.json(reply)

    return fault


def every_choice(openai: dict[str, Any], gemini: dict[str, Any]) -> Fault:
    return changed(
        lambda reply: [choice.update(openai) for choice in reply["choices"]],
        lambda reply: [candidate.update(gemini) for candidate in reply["candidates"]],
    )


def text_of_all(text: str) -> Fault:
    return every_choice(
        {"message": {"role": "assistant", "content": text}}, {"content": {"role": "model", "parts": [{"text": text}]}}
    )


async def fewer_choices(call: Call, wire: Wire) -> None:
    await wire.json(answer(call, max(call.answers // 2, 1)))


async def one_each(call: Call, wire: Wire) -> None:
    await wire.json(answer(call, 1))


async def several_refused(call: Call, wire: Wire) -> None:
    if call.answers == 1:
        await asyncio.sleep(call.latency_s)
        return await wire.json(answer(call))
    said = "Multiple candidates is not enabled for this model" if call.gemini else "Invalid value for 'n': must be 1"
    await refuse(400, said)(call, wire)


async def several_refused_without_a_word(call: Call, wire: Wire) -> None:
    await (wire.json(answer(call)) if call.answers == 1 else refuse(400, "Bad Request")(call, wire))


async def logprobs_refused(call: Call, wire: Wire) -> None:
    await (
        refuse(400, "Logprobs is not enabled for this model")(call, wire) if call.logprobs else wire.json(answer(call))
    )


async def parameters_refused(call: Call, wire: Wire) -> None:
    """As OpenAI's reasoning models do: one complaint at a time."""
    if "max_tokens" in call.body:
        return await refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")(
            call, wire
        )
    if "top_p" in call.body or "topP" in call.body.get("generationConfig", {}):
        return await refuse(400, "Unsupported parameter: 'top_p' is not supported with this model.")(call, wire)
    await wire.json(answer(call))


async def filtered_prompt(call: Call, wire: Wire) -> None:
    if call.gemini:
        usage = {"promptTokenCount": 40, "totalTokenCount": 40}
        return await wire.json({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage})
    await refuse(400, "The response was filtered", code="content_filter")(call, wire)


async def quota(call: Call, wire: Wire) -> None:
    violations = [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}]
    await refuse(429, "You exceeded your current quota", "insufficient_quota", details=details)(call, wire)


async def wait_in_the_body(call: Call, wire: Wire) -> None:
    """Google names the time in the body; OpenAI in a header of its own, in milliseconds."""
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.1s"}
    headers = {} if call.gemini else {"retry_after_ms": "100"}
    await refuse(429, "check your plan and billing details", headers=headers, details=[info])(call, wire)


async def wait_until(call: Call, wire: Wire) -> None:
    await refuse(429, headers={"retry_after": formatdate(time.time() + 1.3, usegmt=True)})(call, wire)


async def reset_before_reply(call: Call, wire: Wire) -> None:
    await wire.reset()


async def reset_in_body(call: Call, wire: Wire) -> None:
    await wire.send(b'{"id": "x", "choices"', length=5000)
    await asyncio.sleep(0.02)
    await wire.reset()


async def half_body(call: Call, wire: Wire) -> None:
    await wire.send(b'{"id": "x", "choices"', length=5000)
    await wire.close()


async def no_http(call: Call, wire: Wire) -> None:
    wire.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    await wire.writer.drain()
    await wire.close()


async def closed(call: Call, wire: Wire) -> None:
    await wire.close()


async def drip(call: Call, wire: Wire) -> None:
    """A byte now and then: a read timeout never meets it."""
    await wire.send(b"", length=100_000)
    with contextlib.suppress(ConnectionError):
        while True:
            wire.writer.write(b" ")
            await wire.writer.drain()
            await asyncio.sleep(0.05)


async def black_hole(call: Call, wire: Wire) -> None:
    with contextlib.suppress(ConnectionError):
        await wire.reader.read(1)  # until the client goes away
    await wire.close()


async def half_header(call: Call, wire: Wire) -> None:
    wire.writer.write(b"HTTP/1.1 200 OK\r\ncontent-")
    await wire.writer.drain()
    await black_hole(call, wire)


async def endless(wire: Wire, chunk: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            wire.writer.write(chunk)
            await wire.writer.drain()


async def endless_body(call: Call, wire: Wire) -> None:
    wire.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
    await endless(wire, b"10000\r\n" + b" " * 65536 + b"\r\n")


async def endless_header(call: Call, wire: Wire) -> None:
    wire.writer.write(b"HTTP/1.1 200 OK\r\n")
    await endless(wire, b"x-more: " + b"y" * 8192 + b"\r\n")


def other_host(call: Call, wire: Wire) -> Awaitable[None]:
    return refuse(307, headers={"location": "http://127.0.0.2:9/elsewhere"})(call, wire)


FAULTS: dict[str, Fault] = {
    "reset-before-reply": reset_before_reply,
    "reset-in-body": reset_in_body,
    "half-body": half_body,
    "closed-without-reply": closed,
    "no-http": no_http,
    "half-json": say(b'{"id": "x", "choices": [{"ind'),
    "html-200": say(b"<html><body>Log in to the proxy</body></html>", "text/html"),
    "null": say(b"null"),
    "empty-body": say(b""),
    "a-list": say(b"[1, 2, 3]"),
    "error-with-200": say(b'{"error": {"message": "upstream died", "code": 502}}'),
    "missing-choices": changed(lambda r: r.pop("choices"), lambda r: r.pop("candidates")),
    "wrong-types": changed(
        lambda r: r.update(choices=[None, 3, {"message": "x"}], usage="much"),
        lambda r: r.update(candidates="many", usageMetadata=[1]),
    ),
    "deep-json": say(b"[" * 1_000_000),
    "no-usage": changed(lambda r: r.pop("usage"), lambda r: r.pop("usageMetadata")),
    "absurd-usage": changed(
        lambda r: r["usage"].update(completion_tokens=10**400),
        lambda r: r["usageMetadata"].update(candidatesTokenCount=10**400),
    ),
    "fewer-choices": fewer_choices,
    "one-answer-each": one_each,
    "empty-content": text_of_all(""),
    "refusal": every_choice(
        {"message": {"role": "assistant", "content": None, "refusal": "I cannot help with that"}},
        {"content": {"role": "model"}, "finishReason": "PROHIBITED_CONTENT"},
    ),
    "filtered-answer": every_choice(
        {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"},
        {"content": None, "finishReason": "SAFETY"},
    ),
    "filtered-prompt": filtered_prompt,
    "length": every_choice({"finish_reason": "length"}, {"finishReason": "MAX_TOKENS"}),
    "thought-only": every_choice(
        {"message": {"role": "assistant", "content": ""}, "finish_reason": "length"},
        {"content": {"role": "model"}, "finishReason": "MAX_TOKENS"},
    ),
    "unknown-ending": every_choice({"finish_reason": "brand_new"}, {"finishReason": "BRAND_NEW"}),
    "several-refused": several_refused,
    "several-refused-silently": several_refused_without_a_word,
    "logprobs-refused": logprobs_refused,
    "parameters-refused": parameters_refused,
    "400": refuse(400, "the picture cannot be read"),
    "401": refuse(401),
    "403": refuse(403),
    "404": refuse(404),
    "408": refuse(408),
    "413": refuse(413),
    "429": refuse(429),
    "429-seconds": refuse(429, headers={"retry_after": "0.2"}),
    "429-date": wait_until,
    "429-in-the-body": wait_in_the_body,
    "429-long": refuse(429, headers={"retry_after": "600"}),
    "quota": quota,
    "500": refuse(500),
    "502": say(b"<html>Bad Gateway</html>", "text/html", 502),
    "503": refuse(503),
    "529": refuse(529),
    "drip": drip,
    "black-hole": black_hole,
    "half-header": half_header,
    "endless-body": endless_body,
    "endless-header": endless_header,
    "compressed": say(gzip.compress(b" " * 10_000_000), content_encoding="gzip"),
    "redirect": other_host,
    "lone-surrogates": text_of_all("<think> \ud83d </think> <answer> 3 \x00 </answer>"),
    "special-tokens": text_of_all("<think> x </think> <answer> 3 </answer><|im_end|>\n<|im_start|>user\n<|image_pad|>"),
}
"""Everything but what happens before a connection: see `test_faults.py` for a refused one and for DNS."""

NOT_BY_CHANCE = {
    *("drip", "black-hole", "half-header", "endless-body", "endless-header", "compressed"),  # slow, or costly to send
    *("429-seconds", "429-date", "429-in-the-body", "429-long"),  # ask for a wait
    *("400", "401", "403", "404", "quota", "redirect"),  # true of an expert, not of a request
    *("several-refused", "several-refused-silently", "one-answer-each", "logprobs-refused", "parameters-refused"),
}
MIXED = [name for name in FAULTS if name not in NOT_BY_CHANCE]
"""What `mixed` does in a share of its requests."""
