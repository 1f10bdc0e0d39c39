"""How an answer is found again: by the content of what was asked.

The key is the sha256 of a canonical JSON text that holds everything that decides what an expert is asked, the answer's
index apart. The text itself is kept beside the answers, so that a record explains itself and a later version of the key
can be computed from it. What is not in the key may change without asking again: name, address, prices, rates.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ekipl_rollout.answer import Question
from ekipl_rollout.settings import ExpertSettings

VERSION = 2  # of the key; part of it

OFFLINE = "offline"
"""`kind` of an expert whose answers were imported: it has a model's name, and nobody knows how it was sampled."""

IN_KEY = ("kind", "model", "instruction", "temperature", "top_p", "max_tokens")

IN_KEY_WHEN_SET = ("instruction_version", "examples", "extra", "logprobs", "token_ids")
"""Part of the key only where they differ from their default, so that a new one leaves old records valid."""

NOT_IN_KEY = frozenset(
    [
        "name",
        "base_url",
        "api_version",
        "project",
        "location",
        "api_key_env",
        "api_key_file",
        "token_param",
        "max_in_flight",
        "requests_per_minute",
        "tokens_per_minute",
        "max_dollars",
        "num_answers",
        "request_timeout_s",
        "retry",
        "max_reply_bytes",
        "max_pixels",
        "dollars_per_million_input",
        "dollars_per_million_output",
        "prices_as_of",
        "picture_tokens",
    ]
)
"""Settings that do not change what is answered. Every setting stands in exactly one of the three lists; a test says so."""


@dataclass(frozen=True)
class Key:
    """What was asked, and its digest."""

    digest: bytes
    """[32] sha256 of `asked`."""

    asked: str
    """Canonical JSON: `version`, `messages` (pictures by their sha256) and the settings in the key."""


def key_of(settings: ExpertSettings, question: Question) -> Key:
    """The key of a question to an expert. The pictures are hashed once per question, whoever is asked."""
    return key_from({"version": VERSION, **settings_in_key(settings), "messages": _messages(question)})


def key_from(asked: Mapping[str, Any]) -> Key:
    """The key of what was asked, given as a dictionary: from an export, or by an import."""
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Key(hashlib.sha256(text.encode("ascii")).digest(), text)


def settings_in_key(settings: ExpertSettings) -> dict[str, Any]:
    if settings.kind == OFFLINE:
        return {"kind": OFFLINE, "model": settings.model}
    values = {name: getattr(settings, name) for name in IN_KEY}
    for field in fields(settings):
        if field.name in IN_KEY_WHEN_SET:
            value = getattr(settings, field.name)
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if value != default:
                values[field.name] = value
    if "examples" in values:
        values["examples"] = [example.content for example in values["examples"]]
    # YAML's `temperature: 1` is an int and means the same as 1.0, but is another JSON text
    return {name: float(v) if name in ("temperature", "top_p") else v for name, v in values.items()}


def _messages(question: Question) -> list[dict[str, Any]]:
    digests = iter(question.picture_digests)
    return [
        {
            "role": turn.role,
            "parts": [{"image": next(digests)} if isinstance(part, bytes) else {"text": part} for part in turn.parts],
        }
        for turn in question.messages
    ]
