"""What cannot work about one entry of `ekipl.experts`, each problem with its key, its value and the way out."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ekipl_rollout.errors import Lacking

if TYPE_CHECKING:
    from ekipl_rollout.settings.expert import ExpertSettings

KINDS = ("openai", "gemini", "offline")
TOKEN_PARAMS = ("auto", "max_completion_tokens", "max_tokens")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SDKS = {"openai": ("openai", "httpx2", "anyio"), "gemini": ("google.genai", "httpx2", "anyio")}
OURS = frozenset(
    ["model", "messages", "contents", "n", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p"]
    + ["logprobs", "return_token_ids", "candidate_count", "max_output_tokens", "response_logprobs"]
    + ["system_instruction", "http_options", "automatic_continuation"]
)
"""Fields of a request that `extra` may not set: they have settings of their own, or we count with them."""

LOOKS_LIKE_A_KEY = re.compile(
    r"\bsk-[\w-]{16,}|\bAIza[\w-]{16,}|\bya29\.[\w.-]{16,}|\b[Bb]earer\s+[\w.~+/-]{16,}", re.ASCII
)


def problems_of(entry: "ExpertSettings") -> list[str]:
    """All of them at once; an entry that holds a key itself is quoted in none."""
    at = f"ekipl.experts[{entry.name}]"
    if LOOKS_LIKE_A_KEY.search(" ".join(str(getattr(entry, f.name)) for f in fields(entry))):
        return ["ekipl.experts: an entry holds something that looks like a key. Put it in an environment variable."]
    return [
        *_basic_problems(entry, at),
        *_sdk_problems(entry, at),
        *_key_problems(entry, at),
        *_bounds_problems(entry, at),
        *address_problems(entry),
        *entry.retry.problems(f"{at}.retry"),
    ]


def _basic_problems(entry: "ExpertSettings", at: str) -> Iterator[str]:
    if entry.kind not in KINDS and (why := _no_such_class(entry.kind)):
        yield (
            f"{at}.kind={entry.kind!r} is not known ({why}). Choose from {', '.join(KINDS)}, or give the dotted name of "
            "a class of yours that can be imported here (docs/plug_in.md)."
        )
    if entry.token_param not in TOKEN_PARAMS:
        yield f"{at}.token_param={entry.token_param!r} is not known. Choose from {', '.join(TOKEN_PARAMS)}."
    if entry.name == "policy" or not entry.name.replace("-", "_").replace(".", "_").isidentifier():
        yield f"{at}.name must be a short word of letters, digits, '-', '_' or '.', and not 'policy'."
    for name in ("max_in_flight", "max_tokens", "request_timeout_s", "max_reply_bytes", "max_pixels"):
        if getattr(entry, name) <= 0:
            yield f"{at}.{name}={getattr(entry, name)} must be more than 0."
    if min(entry.dollars_per_million_input, entry.dollars_per_million_output) < 0:
        yield f"{at}: dollars_per_million_input and dollars_per_million_output must be 0 or more."
    if entry.prices_as_of is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", entry.prices_as_of):
        yield f"{at}.prices_as_of={entry.prices_as_of!r} is no day. Write it like 2026-11-20."
    if taken := OURS.intersection(entry.extra):
        yield f"{at}.extra.{min(taken)} cannot be set there: it has a setting of its own."
    for path in (path for example in entry.examples for path in example.pictures):
        if not Path(path).expanduser().is_file():
            yield f"{at}.examples: the picture {path} does not exist."


def _sdk_problems(entry: "ExpertSettings", at: str) -> Iterator[str]:
    """A worker would find out when it builds its experts, minutes after the start."""
    absent = [name for name in SDKS.get(entry.kind, ()) if not _is_installed(name)]
    if absent:
        yield Lacking(
            f"{at}.kind={entry.kind}: {', '.join(absent)} not installed. In a clone of this repository: pip install '.[experts]'"
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def _key_problems(entry: "ExpertSettings", at: str) -> Iterator[str]:
    if entry.api_key_env and entry.api_key_file:
        yield f"{at}: api_key_env and api_key_file are both set. Keep one."
    elif entry.api_key_env and not os.environ.get(entry.api_key_env, "").strip():
        yield Lacking(
            f"{at}.api_key_env={entry.api_key_env}: this environment variable is not set or empty. "
            f"Export it in the shell that starts the run: export {entry.api_key_env}=..."
        )
    elif entry.api_key_file and (problem := key_file_problem(entry.api_key_file)):
        yield Lacking(f"{at}.api_key_file={entry.api_key_file} {problem}")
    if entry.project and (entry.kind != "gemini" or entry.api_key_env or entry.api_key_file):
        yield f"{at}.project={entry.project} is for kind gemini without a key: Vertex AI takes default credentials."
    if entry.base_url is None and not entry.has_key and entry.kind in ("openai", "gemini"):
        yield f"{at} asks the provider itself but has no api_key_env. Name the variable with the key, or set base_url."


def _bounds_problems(entry: "ExpertSettings", at: str) -> Iterator[str]:
    for name in ("requests_per_minute", "tokens_per_minute", "num_answers"):
        value = getattr(entry, name)
        if value is not None and value < 1:
            yield f"{at}.{name}={value} must be 1 or more; null is no limit of its own."
    if entry.max_dollars is not None and entry.max_dollars < 0:
        yield f"{at}.max_dollars={entry.max_dollars} must be 0 or more dollars; null is no limit of its own."
    if entry.tokens_per_minute is not None and entry.tokens_per_minute < entry.max_tokens:
        yield (
            f"{at}.tokens_per_minute={entry.tokens_per_minute} is less than one answer may take "
            f"(max_tokens={entry.max_tokens}), so that nothing could ever be asked. Raise it or lower max_tokens."
        )


def address_problems(entry: "ExpertSettings") -> Iterator[str]:
    """What is wrong about the address; a key over http:// among it."""
    at = f"ekipl.experts[{entry.name}]"
    if entry.api_version and entry.kind == "openai" and entry.base_url is None:
        yield f"{at}.api_version={entry.api_version} is for Azure. Set base_url to https://RESOURCE.openai.azure.com."
    if entry.base_url is None:
        return
    address = urlsplit(entry.base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        yield f"{at}.base_url={entry.base_url!r} is no address. Write it like http://127.0.0.1:8000/v1."
    elif address.username or address.password or address.query:
        yield f"{at}.base_url carries a user, password or query, which would end up in logs. Use api_key_env."
    elif address.scheme == "http" and entry.has_key and address.hostname not in LOOPBACK:
        yield f"{at}.base_url={entry.base_url!r} would send the key unencrypted. Use https://, or no api_key_env."


def _no_such_class(kind: str) -> str | None:
    from ekipl_rollout.experts.build import expert_class  # that package imports the settings itself

    try:
        expert_class(kind)
    except Exception as error:  # importing somebody's module can raise anything
        return f"{type(error).__name__}: {error}"
    return None


def key_file_problem(path: str) -> str | None:
    """Why a key file cannot be used; None when it can."""
    try:
        status = os.stat(os.path.expanduser(path))
    except OSError as error:
        return f"cannot be read: {error.strerror}."
    if not stat.S_ISREG(status.st_mode):
        return "is no ordinary file."
    if status.st_mode & 0o077:
        return f"can be read by others (mode {status.st_mode & 0o777:o}). Run: chmod 600 {path}"
    return None
