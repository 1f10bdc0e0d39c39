"""verl's raw prompt -> the question that experts are asked, pictures as the bytes that lie in the data set."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.errors import ExpertError, Failure


def question_of(raw_prompt: list[dict[str, Any]], uid: str, step: int | None = None) -> Question:
    """Same turns, same order of text and pictures as the policy sees (verl/utils/dataset/rl_dataset.py)."""
    return Question(uid, tuple(Message(turn["role"], _parts(turn["content"])) for turn in raw_prompt), step)


def _parts(content: str | list[dict[str, Any]]) -> tuple[str | bytes, ...]:
    if isinstance(content, str):
        return (content,)
    return tuple(part["text"] if part["type"] == "text" else _picture(part) for part in content)


def _picture(part: dict[str, Any]) -> bytes:
    if part["type"] == "image" and isinstance(part.get("bytes"), bytes):
        return part["bytes"]
    image = part.get("image")
    if part["type"] == "image" and isinstance(image, str):
        return _read(image)
    if part["type"] == "image" and isinstance(image, Image.Image):
        return _png(image)
    raise ExpertError(
        Failure.BAD_REQUEST, f"experts cannot be shown a part of type {part['type']!r} without its original bytes"
    )


def _read(address: str) -> bytes:
    try:
        return Path(address.removeprefix("file://")).read_bytes()
    except OSError as error:
        raise ExpertError(Failure.BAD_REQUEST, f"the picture {address[:80]!r} cannot be read: {error}") from None


def _png(image: Image.Image) -> bytes:
    """A picture that came decoded (the Image feature of Hugging Face data sets, as in verl's geo3k): its bytes are gone
    and its pixels are not. PNG loses none of them, and the same ones always give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # a tenth of the time of the default level
    return buffer.getvalue()


def raw_prompt_of(prompt: Sequence[dict[str, Any]], images: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """What verl makes of a row's `prompt` and `images` before the worker sees it: each <image> marker becomes the next
    picture (verl/utils/dataset/rl_dataset.py: `_build_messages`). For whoever asks before training does.

    Raises ValueError when markers and pictures do not match.
    """
    waiting, turns = list(images), []
    for turn in prompt:
        content = turn["content"]
        if images and isinstance(content, str):
            content = [_marked(segment, waiting) for segment in re.split("(<image>)", content) if segment]
        turns.append({"role": turn["role"], "content": content})
    if waiting:
        raise ValueError(f"{len(waiting)} of {len(images)} pictures have no <image> marker in the prompt")
    return turns


def _marked(segment: str, waiting: list[Any]) -> dict[str, Any]:
    if segment != "<image>":
        return {"type": "text", "text": segment}
    if not waiting:
        raise ValueError("the prompt has more <image> markers than pictures")
    image = waiting.pop(0)
    return {"type": "image", **image} if isinstance(image, dict) else {"type": "image", "image": image}
