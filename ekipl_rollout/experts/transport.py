"""HTTP for both SDKs: one client of ours for each expert.

Both SDKs are given it, so that transport, timeouts and redirects do not depend on what else is installed (google-genai
switches to aiohttp when it finds it, with other timeouts and hidden retries). Time is bounded by the caller, around the
whole request: a read timeout is per chunk, and a server that drips a byte a second never meets it.
"""

from collections.abc import AsyncIterator
from functools import lru_cache
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ekipl_rollout.settings import ExpertSettings
from ekipl_rollout.settings.expert_problems import LOOPBACK

CONNECT_SECONDS = 10.0  # an unreachable server should be known soon


class UnreadableReply(Exception):
    """A reply that is not read to its end: too long, or compressed although nobody asked for that."""


def http_client(httpx: ModuleType, settings: ExpertSettings, address: str) -> Any:
    """An AsyncClient of `httpx` or `httpx2`: no redirects (they would carry keys elsewhere), as many sockets as
    requests, and replies of bounded size."""
    limits = httpx.Limits(max_connections=settings.max_in_flight, max_keepalive_connections=settings.max_in_flight)

    async def bound(
        response: Any,
    ) -> None:  # here and not in a transport, so that proxies of the environment still work
        response.stream = _bounded(httpx)(response, settings.max_reply_bytes)

    return httpx.AsyncClient(
        limits=limits,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        follow_redirects=False,
        # a compressed reply could be small on the wire and endless in memory
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [bound]},
        # a proxy of the environment is not for loopback: it would be handed the key in the clear
        trust_env=urlsplit(address).hostname not in LOOPBACK,
    )


@lru_cache(maxsize=2)
def _bounded(httpx: ModuleType) -> type:
    """A stream that stops at so many bytes. One class for each httpx there is."""

    class Bounded(httpx.AsyncByteStream):  # type: ignore[name-defined]
        def __init__(self, response: Any, limit: int):
            self._stream, self._limit = response.stream, limit
            self._encoding = response.headers.get("content-encoding", "identity")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            if self._encoding != "identity":
                raise UnreadableReply("the reply is compressed, which nobody asked for")
            seen = 0
            async for chunk in self._stream:
                seen += len(chunk)
                if seen > self._limit:
                    raise UnreadableReply(f"the reply is longer than max_reply_bytes={self._limit}")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded
