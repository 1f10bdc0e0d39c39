"""A provider in both protocols, as the faults need it: one request, the healthy reply to it, and the wire."""

import asyncio
import json
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass
class Call:
    """One request, as far as faults need it."""

    gemini: bool
    model: str
    target: str
    """Path and query."""

    body: dict[str, Any]
    headers: dict[str, str]
    serial: int
    """Unique over the server's life."""

    hit: int
    """1 for the first request to this model."""

    latency_s: float
    """How long an answer takes here."""

    billed: "Counter[str]"
    """The server's account: tokens of all replies that carry a usage."""

    @property
    def answers(self) -> int:
        asked = self.body.get("generationConfig", {}).get("candidateCount") if self.gemini else self.body.get("n")
        return int(asked or 1)

    @property
    def logprobs(self) -> bool:
        return bool((self.body.get("generationConfig", {}) if self.gemini else self.body).get(self._logprobs_name))

    @property
    def _logprobs_name(self) -> str:
        return "responseLogprobs" if self.gemini else "logprobs"

    def text(self, index: int) -> str:
        """A different answer each time; it names the question, so that a mix-up would show."""
        turns = self.body.get("contents") or self.body.get("messages") or [{}]
        parts = turns[-1].get("parts") or turns[-1].get("content") or []
        asked = next((part["text"] for part in parts if isinstance(part, dict) and "text" in part), "")
        return f"<think> {self.serial}.{index} </think> <answer> {asked[:40]} </answer>"


def answer(call: Call, count: int | None = None) -> dict[str, Any]:
    """What a healthy server says."""
    count = call.answers if count is None else count
    call.billed.update(input=40, output=10 * count)
    if call.gemini:
        return {
            "candidates": [_candidate(call, i) for i in range(count)],
            "modelVersion": call.model,
            "responseId": f"r{call.serial}",
            "usageMetadata": {
                "promptTokenCount": 40,
                "candidatesTokenCount": 6 * count,
                "thoughtsTokenCount": 4 * count,
            },
        }
    return {
        "id": f"c{call.serial}",
        "object": "chat.completion",
        "created": 1,
        "model": call.model,
        "choices": [_choice(call, i) for i in range(count)],
        "usage": {
            "prompt_tokens": 40,
            "completion_tokens": 10 * count,
            "total_tokens": 40 + 10 * count,
            "completion_tokens_details": {"reasoning_tokens": 4 * count},
        },
    }


def _candidate(call: Call, index: int) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "index": index,
        "finishReason": "STOP",
        "content": {"role": "model", "parts": [{"text": call.text(index)}]},
    }
    if call.logprobs:
        chosen = [{"token": "a", "tokenId": 7 + index, "logProbability": -0.5}]
        candidate["logprobsResult"] = {"chosenCandidates": chosen, "topCandidates": []}
    return candidate


def _choice(call: Call, index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": call.text(index)}
    choice: dict[str, Any] = {"index": index, "finish_reason": "stop", "message": message}
    if call.logprobs:
        choice["logprobs"] = {"content": [{"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}]}
    if call.body.get("return_token_ids"):
        choice["token_ids"] = [7 + index]
    return choice


class Wire:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.open = True

    async def send(
        self, body: bytes, status: int = 200, kind: str = "application/json", length: int | None = None, **headers: str
    ):
        """An HTTP reply. `length` says another number of bytes than are sent."""
        lines = [
            f"HTTP/1.1 {status} X",
            f"content-type: {kind}",
            f"content-length: {len(body) if length is None else length}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def json(self, payload: Any, status: int = 200, **headers: str) -> None:
        await self.send(json.dumps(payload).encode(), status, **headers)

    async def close(self) -> None:
        self.open = False

    async def reset(self) -> None:
        """RST, as a crashed or overloaded server gives it."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()
        self.open = False
