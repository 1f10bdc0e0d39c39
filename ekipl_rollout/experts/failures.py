"""One reading of everything that the two SDKs can raise: a flat ExpertError without key.

No SDK exception leaves this package: they carry request headers, that is the key, and cannot be pickled reliably.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.experts.transport import UnreadableReply

TRANSPORT_MODULES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2"})
NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
MAYBE_BILLED = frozenset({408, 499, 502, 504})
"""Statuses of a gateway that lost sight of a server which may have done its work."""

_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit|billing_not_active|per_?day", re.IGNORECASE)
_FILTER = re.compile(r"content_filter|responsibleai|content management policy", re.IGNORECASE)
_BAD_KEY = re.compile(r"api_key_invalid|api key not valid|api key expired|invalid_api_key", re.IGNORECASE)
_RETRY_INFO = re.compile(r"retryDelay['\"]?\s*:\s*['\"](\d+(?:\.\d+)?)s")


def to_expert_error(error: Exception, secret: Secret) -> ExpertError:
    """What an SDK raised, as a flat error. The caller raises it outside of its `except`, so that nothing is chained."""
    status = _status(error)
    if status is not None:
        return _of_status(status, secret.redact(f"{type(error).__name__}: {_words(error)}"), error)
    chain = list(_chain(error))
    message = secret.redact(f"{type(error).__name__}: {_words(error)}")
    names = {type(link).__name__ for link in chain}
    sent = not names & NOT_SENT
    if unreadable := next((link for link in chain if isinstance(link, UnreadableReply)), None):
        return ExpertError(Failure.BAD_REPLY, str(unreadable), 200, may_be_billed=True)
    if type(error).__module__.startswith("google.auth"):  # Vertex: the credentials, not the model
        failure = Failure.UNREACHABLE if "TransportError" in names else Failure.UNAUTHORIZED
        return ExpertError(failure, message)
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return ExpertError(Failure.TIMED_OUT, message, may_be_billed=sent)
    modules = {cls.__module__.split(".")[0] for link in chain for cls in type(link).__mro__}
    if isinstance(error, OSError) or (modules & TRANSPORT_MODULES and not isinstance(error, json.JSONDecodeError)):
        return ExpertError(Failure.UNREACHABLE, secret.redact(_story(chain)), may_be_billed=sent)
    # whatever else an SDK raises, it does so over a reply that it does not understand: odd JSON, wrong types
    return ExpertError(Failure.BAD_REPLY, message, 200, may_be_billed=True)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _story(chain: list[BaseException]) -> str:
    """The error and what lies under it: "Connection error." alone helps nobody."""
    told = [f"{type(link).__name__}: {link}".rstrip(": ") for link in chain if str(link)] or [type(chain[0]).__name__]
    return told[0] if told[0] == told[-1] else f"{told[0]}, from {told[-1]}"


def _words(error: BaseException) -> str:
    """google-genai's text repeats the whole body around its message."""
    message = getattr(error, "message", None)
    return message if isinstance(message, str) and message else str(error)


def _status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    if status is None and type(error).__module__.startswith("google.genai"):
        status = getattr(error, "code", None)
    if status is None:  # httpx: raise_for_status
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _of_status(status: int, message: str, error: Exception) -> ExpertError:
    body = str(getattr(error, "body", "") or getattr(error, "details", "") or "")[:20_000]
    failure = _failure(status, body)
    if 300 <= status < 400:
        message = f"a redirect, which is not followed: {message}"
    return ExpertError(failure, message, status, _retry_after(error, body), status in MAYBE_BILLED)


def _failure(status: int, body: str) -> Failure:
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(body)):
        return Failure.UNAUTHORIZED
    if status == 402 or (status in (400, 429) and _QUOTA.search(body)):
        return Failure.OUT_OF_QUOTA
    if status == 400 and _FILTER.search(body):
        return Failure.BLOCKED
    if status == 429:
        return Failure.RATE_LIMITED
    if status == 404:
        return Failure.NOT_FOUND
    if status in (408, 409, 425, 499) or status >= 500:
        return Failure.SERVER_ERROR
    return Failure.BAD_REQUEST


def _retry_after(error: Exception, body: str) -> float | None:
    """Seconds that the provider asks to wait: by header (milliseconds, seconds or a date) or in Google's body."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    if milliseconds := headers.get("retry-after-ms"):
        return _seconds(milliseconds, 1000.0)
    if value := headers.get("retry-after"):
        return _seconds(value) if _seconds(value) is not None else _until(value)
    told = _RETRY_INFO.search(body)
    return float(told.group(1)) if told else None


def _seconds(value: str, divisor: float = 1.0) -> float | None:
    try:
        seconds = float(value) / divisor
    except ValueError:
        return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _until(value: str) -> float | None:
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
