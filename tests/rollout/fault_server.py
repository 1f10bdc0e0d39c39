"""A server that fails in every way that is known of the providers, on real sockets, in both protocols.

    python -m tests.rollout.fault_server --port 8766

The model's name chooses the fault (`FAULTS`), so that nothing has to be set up and users do not disturb one another:
`half-json` fails always, `half-json.once` on its first request only; what follows an "@" makes the name unique.
`mixed` fails in a share of its requests (`--failures`), in a different way each time. Any other name answers.
"""

import argparse
import asyncio
import itertools
import json
import random
import socket
import threading
import time
from collections import Counter

from tests.rollout.faults import FAULTS, MIXED, Fault, refuse
from tests.rollout.provider import Call, Wire, answer


class FaultServer:
    """`with FaultServer() as server: server.url`. Runs in a thread of its own; counts what it was asked."""

    def __init__(
        self,
        port: int = 0,
        *,
        latency_s: float = 0.0,
        rate: float | None = None,
        failures: float = 0.2,
        broken: float = 0.0,
        seed: int = 0,
    ):
        self.socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.latency_s, self.rate, self.failures, self.broken = latency_s, rate, failures, broken
        self.hits: Counter[str] = Counter()
        self.calls: dict[str, Call] = {}
        """The last request to each model."""

        self.billed: Counter[str] = Counter()
        """`input` and `output` tokens."""

        self.connections = 0
        """Open now."""

        self.said: set[str] = set()
        """Texts of healthy replies to `mixed`."""

        self.faulted = 0
        """Requests to `mixed` that failed."""

        self._serial, self._random = itertools.count(), random.Random(seed)
        self._tokens, self._filled = float(rate or 0), time.monotonic()
        self._tasks: set[asyncio.Task] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    def __enter__(self) -> "FaultServer":
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.socket.close()

    async def serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, sock=self.socket, limit=64_000_000)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        wire = Wire(reader, writer)
        try:
            while wire.open:
                call = await self._read(reader)
                if call is None:
                    break
                await self._fault_of(call)(call, wire)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Call | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw) if raw else {}
        target = first.split(" ")[1]
        path = target.partition("?")[0]
        gemini = ":generateContent" in path
        model = path.rpartition("/")[2].partition(":")[0] if gemini else str(body.get("model", path))
        self.hits[model] += 1
        call = self.calls[model] = Call(
            gemini=gemini,
            model=model,
            target=target,
            body=body,
            headers=headers,
            serial=next(self._serial),
            hit=self.hits[model],
            latency_s=self.latency_s,
            billed=self.billed,
        )
        return call

    def _fault_of(self, call: Call) -> Fault:
        name, _, when = call.model.partition("@")[0].partition(".")
        if self.rate is not None and not self._take_token():
            return refuse(429, headers={"retry_after": "0.05"})
        if self._random.random() < self.broken:
            return FAULTS["503"]
        if name == "mixed" and self._random.random() < self.failures:
            name, self.faulted = self._random.choice(MIXED), self.faulted + 1
        if name in FAULTS and not (when == "once" and call.hit > 1):
            return FAULTS[name]
        return self._healthy

    def _take_token(self) -> bool:
        """A bucket of one second's requests, as providers limit their rate."""
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._filled) * self.rate, self.rate)
        self._filled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    async def _healthy(self, call: Call, wire: Wire) -> None:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if call.model.startswith("/"):  # GET /models/...
            return await wire.json({"id": call.model.rpartition("/")[2], "object": "model", "shutdown_date": None})
        await wire.json(answer(call))
        if call.model.startswith("mixed"):
            self.said |= {call.text(index) for index in range(call.answers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8766, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--rate", type=float, help="requests a second; more are refused with 429 and Retry-After")
    parser.add_argument("--broken", type=float, default=0.0, help="share of all requests that get 503")
    parser.add_argument("--failures", type=float, default=0.2, help="share of the requests to `mixed` that fail")
    args = parser.parse_args()
    server = FaultServer(args.port, latency_s=args.latency, rate=args.rate, failures=args.failures, broken=args.broken)
    print(server.url, flush=True)
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
