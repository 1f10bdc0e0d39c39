"""The viewer's server: loopback only, and a page that may run and load nothing but its own files.

Experts' and policies' texts are untrusted. They leave here as JSON, which no browser takes for a page (nosniff), and the
content security policy would stop a script that got into the page nevertheless. The Host header is checked, so that no
website can reach the server under a name of its own (DNS rebinding).
"""

import json
import socket
import threading
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.view.answers import Answers

PAGE = Path(__file__).parent / "page"
HOSTS = ["127.0.0.1", "localhost"]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class SafeHeaders:
    """ASGI middleware: HEADERS on every response, errors too."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [pair for pair in message["headers"] if pair[0].decode() not in HEADERS] + ours
            await send(message)

        await self._app(scope, receive, with_headers)


def as_json(content: Any) -> str:
    """ASCII only: a text may hold halves of characters, which no encoding takes. NaN and infinity, which a reward function of
    somebody's own may give and no browser reads, become null."""
    try:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(json.loads(json.dumps(content, default=str), parse_constant=lambda _: None))


def make_app(answers: Answers) -> Starlette:
    lock = threading.Lock()

    def ask(request: Request) -> Response:
        try:
            with lock:
                found, status = answers.get(request.path_params["path"]), 200
        except EkiplError as error:
            found, status = {"error": str(error)}, 422
        if found is None:
            found, status = {"error": "there is no such thing (any more)"}, 404
        return Response(as_json(found), status, media_type="application/json")

    return Starlette(
        routes=[
            Route("/", lambda request: FileResponse(PAGE / "index.html")),
            Route("/api/{path:path}", ask),
            Mount("/page", StaticFiles(directory=PAGE)),
        ],
        middleware=[Middleware(SafeHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
    )


def serve(answers: Answers, port: int) -> None:
    """Until Ctrl-C. `port` 0: any free one. Raises OSError when the port is taken."""
    import uvicorn  # not needed by an export

    with socket.create_server(("127.0.0.1", port)) as listening:
        print(f"  viewer      http://127.0.0.1:{listening.getsockname()[1]}/   (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(answers), log_level="warning", lifespan="off"))
        server.run(sockets=[listening])
