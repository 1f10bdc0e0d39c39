"""verl's raw prompt -> the question that experts are asked, pictures as the bytes that lie in the data set."""

from pathlib import Path
from typing import Any

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.errors import ExpertError, Failure


def question_of(raw_prompt: list[dict[str, Any]], uid: str) -> Question:
    """Same turns, same order of text and pictures as the policy sees (verl/utils/dataset/rl_dataset.py)."""
    return Question(uid, tuple(Message(turn["role"], _parts(turn["content"])) for turn in raw_prompt))


def _parts(content: str | list[dict[str, Any]]) -> tuple[str | bytes, ...]:
    if isinstance(content, str):
        return (content,)
    return tuple(part["text"] if part["type"] == "text" else _picture(part) for part in content)


def _picture(part: dict[str, Any]) -> bytes:
    if part["type"] == "image" and isinstance(part.get("bytes"), bytes):
        return part["bytes"]
    path = part.get("image")
    if part["type"] == "image" and isinstance(path, str):
        return Path(path.removeprefix("file://")).read_bytes()
    raise ExpertError(
        Failure.BAD_REQUEST, f"experts cannot be shown a part of type {part['type']!r} without its original bytes"
    )
