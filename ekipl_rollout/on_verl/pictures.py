"""Pictures are processed once per prompt and purpose, not once per answer.

verl runs the Hugging Face processor in each of a prompt's sessions and again for each row that it writes: with N = 8
and 24 candidates up to 40 times for the same picture.
"""

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

KEPT = 512
"""Processed prompts that are remembered; a batch is far smaller."""


class ProcessorWithMemory:
    """A processor that answers the same text and pictures from memory. Everything else passes through.

    Calls come from several threads; the first of equal ones works and the others wait for it.
    """

    def __init__(self, processor: Any):
        self._processor = processor
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[threading.Lock, list]] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = None if args else _key(kwargs)
        if key is None:
            return self._processor(*args, **kwargs)
        with self._lock:
            lock, result = self._known.setdefault(key, (threading.Lock(), []))
            self._known.move_to_end(key)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        with lock:
            if not result:
                result.append(self._processor(**kwargs))
        # callers pop entries from what they get, so each gets a mapping of its own; the tensors are shared
        return type(result[0])(dict(result[0]))


def only_shown(data: dict[str, Any] | None, raw_prompt: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Of a session's pictures, videos and sounds those of the row's own prompt: the first ones. What tools added on the
    session's way has no place in a row that is nothing but prompt and answer."""
    if data is None:
        return None
    parts = [part for turn in raw_prompt if not isinstance(turn["content"], str) for part in turn["content"]]
    shown = Counter(f"{str(part.get('type')).removesuffix('_url')}s" for part in parts)
    return {kind: values and values[: shown[kind]] for kind, values in data.items()}


def _key(kwargs: dict[str, Any]) -> str | None:
    """Digest of a call with text and pictures; None for a call that is not remembered (videos, audio, no pictures)."""
    images = kwargs.get("images")
    if not images or kwargs.get("videos") or kwargs.get("audio"):
        return None
    digest = hashlib.blake2b(repr(kwargs["text"]).encode(errors="surrogatepass"))
    for image in images:
        digest.update(f"{image.mode}{image.size}".encode())
        digest.update(image.tobytes())
    rest = {name: value for name, value in kwargs.items() if name not in ("text", "images")}
    digest.update(repr(sorted(rest.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()
