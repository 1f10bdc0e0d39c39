"""A Google service account on loopback: a key made for the test, and a token server that google-auth really asks."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "ya29.canary-token-0123456789"


@dataclass
class Account:
    path: Path
    token: str = TOKEN
    asked: int = 0


def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


@contextlib.contextmanager
def service_account(folder: Path, revoked: bool = False) -> Iterator[Account]:
    """The account's file lies in `folder`; its tokens are good for an hour, unless it is revoked."""
    account = Account(folder / "account.json")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            account.asked += 1
            refusal = {"error": "invalid_grant", "error_description": f"revoked: {TOKEN}"}
            token = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
            body = json.dumps(refusal if revoked else token).encode()
            self.send_response(400 if revoked else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    values = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "private_key": private_key(),
        "client_email": "test@my-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"http://127.0.0.1:{server.server_port}/token",
    }
    account.path.write_text(json.dumps(values))
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
