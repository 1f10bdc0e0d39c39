"""Whether a record can stand in for experts at all: a replay of somebody else's answers would train without any."""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ekipl_rollout.record.database import open_to_read
from ekipl_rollout.record.key import VERSION, settings_in_key
from ekipl_rollout.record.row import unpack
from ekipl_rollout.settings import ExpertSettings

OF_THE_QUESTION = ("messages", "version")
NAMED = 4  # experts of the record in the message


def replay_problem(path: Path, experts: Sequence[ExpertSettings]) -> str | None:
    """Why a replay would train without experts: the record holds no question to any of them. None where it holds one.

    Reads until an expert is found, the whole file at worst. An expert that is missing beside others is no problem: it may
    have failed throughout, and `ekipl.record.missing` says what to do.
    """
    wanted, seen = [settings_in_key(expert) for expert in experts], list[dict[str, Any]]()
    with closing(open_to_read(path)) as db:
        for asked in _asked(db):
            if asked in wanted:
                return None
            if asked not in seen:
                seen.append(asked)
    if not wanted:
        return None
    held = " and ".join(_named(asked) for asked in seen[:NAMED]) or "no expert"
    return (
        f"ekipl.record.path={str(path)!r} holds answers of {held}, and of none of ekipl.experts: "
        f"{' and '.join(_named(asked) for asked in wanted)}. record.mode=replay would train without experts. Choose the "
        "experts that it was recorded with (model, instruction, temperature and max_tokens alike), or another record."
    )


def _named(asked: dict[str, Any]) -> str:
    """An expert by what decides its answers."""
    rest = ", ".join(
        f"{name}={asked[name]!r}" for name in ("temperature", "max_tokens", "instruction") if name in asked
    )
    return f"{asked.get('kind')}:{asked.get('model')} ({rest})" if rest else f"{asked.get('kind')}:{asked.get('model')}"


def _asked(db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """The settings of every question of this version of the key; what is damaged is passed over (`record verify` tells)."""
    for (packed,) in db.execute("SELECT asked FROM questions"):
        try:
            asked = json.loads(unpack(packed))
        except (zlib.error, ValueError, TypeError):
            continue
        if isinstance(asked, dict) and asked.get("version") == VERSION:
            yield {name: value for name, value in asked.items() if name not in OF_THE_QUESTION}
