"""HTTP for both SDKs, and one reading of everything they can raise.

Both SDKs are given a client of ours, so that transport, timeouts and redirects do not depend on what else is
installed (google-genai switches to aiohttp when it finds it, with other timeouts and hidden retries). Their own
retries are off. No SDK exception leaves this package: they carry request headers, that is the key.
"""

import json
from types import ModuleType
from typing import Any

from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.secret import Secret

CONNECT_SECONDS = 10.0  # an unreachable server should be known soon
READ_SECONDS = 600.0  # per chunk; the whole request is bounded by the caller's deadline
TRANSPORT_MODULES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "aiohttp"})
UNREADABLE = frozenset({"UnknownApiResponseError", "APIResponseValidationError", "ValidationError"})


def http_client(httpx: ModuleType, max_in_flight: int) -> Any:
    """An AsyncClient of `httpx` or `httpx2`: no redirects (they would carry keys elsewhere), as many sockets as requests."""
    limits = httpx.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight)
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None)
    return httpx.AsyncClient(limits=limits, timeout=timeout, follow_redirects=False, trust_env=True)


def to_expert_error(error: Exception, secret: Secret) -> ExpertError:
    """What an SDK raised, as a flat error without key. Raise it `from None`."""
    message = secret.redact(f"{type(error).__name__}: {error}")
    status = _status(error)
    if status is not None:
        body = str(getattr(error, "body", "") or getattr(error, "details", "") or "").lower()
        return ExpertError(_failure_of_status(status, body), message, status, _retry_after(error))
    modules = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
    name = type(error).__name__
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) or name in UNREADABLE:
        return ExpertError(Failure.BAD_REPLY, message)
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return ExpertError(Failure.TIMED_OUT, message)
    if isinstance(error, OSError) or modules & TRANSPORT_MODULES or name == "APIConnectionError":
        return ExpertError(Failure.UNREACHABLE, message)
    raise error  # our own bug: it keeps travelling


def _status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    if status is None and type(error).__module__.startswith("google."):
        status = getattr(error, "code", None)
    return status if isinstance(status, int) else None


def _failure_of_status(status: int, body: str) -> Failure:
    if status == 400 and ("content_filter" in body or "responsibleai" in body):
        return Failure.BLOCKED
    if status == 429:
        return Failure.OUT_OF_QUOTA if "insufficient_quota" in body or "billing" in body else Failure.RATE_LIMITED
    if status in (401, 403):
        return Failure.UNAUTHORIZED
    if status == 404:
        return Failure.NOT_FOUND
    if status in (408, 409, 425, 499) or status >= 500:
        return Failure.SERVER_ERROR
    return Failure.BAD_REQUEST


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    try:
        return float(headers["retry-after"]) if headers is not None else None
    except (KeyError, ValueError, TypeError):
        return None
