"""A settings class from a block of plain values, with every problem named by its key."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin

_PLAIN: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "str | None": lambda v: v is None or isinstance(v, str),
    "int | None": lambda v: v is None or (isinstance(v, int) and not isinstance(v, bool)),
    "float | None": lambda v: v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)),
}


def read_block(cls: type, values: Any, at: str, problems: list[str]) -> Any:
    """An instance of `cls` from `values`; appends to `problems` and returns None when that is not possible."""
    if not isinstance(values, Mapping) and not hasattr(values, "keys"):
        problems.append(f"{at} must be a block of settings, not {values!r}.")
        return None
    known = {f.name: f for f in fields(cls)}
    taken: dict[str, Any] = {}
    before = len(problems)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            problems.append(f"{at}.{key} is no setting. {hint}")
            continue
        taken[key] = _read_field(known[key], values[key], f"{at}.{key}", problems)
    for name, f in known.items():
        if name not in taken and f.default is MISSING and f.default_factory is MISSING:
            problems.append(f"{at}.{name} is missing.")
    return cls(**taken) if len(problems) == before else None


def _read_field(spec: Any, value: Any, at: str, problems: list[str]) -> Any:
    """One value. A field whose type is a settings class is a block, a tuple of one is a list of blocks."""
    kind = spec.type
    if isinstance(kind, type) and is_dataclass(kind):
        return read_block(kind, value if value is not None else {}, at, problems)
    if get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
        entries = [] if value is None else list(value)
        return tuple(read_block(get_args(kind)[0], entry, f"{at}[{i}]", problems) for i, entry in enumerate(entries))
    if get_origin(kind) in (tuple, dict):
        return _read_collection(kind, value, at, problems)
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    if name in _PLAIN and not _PLAIN[name](value):
        problems.append(f"{at}={value!r} must be of type {name}.")
    return value


def _read_collection(kind: Any, value: Any, at: str, problems: list[str]) -> Any:
    """A tuple of words, or a block with keys of its own."""
    plain = _plain(value)
    if get_origin(kind) is dict:
        words = get_args(kind)[1] is str
        if plain is None or (
            isinstance(plain, dict) and not (words and any(not isinstance(v, str) for v in plain.values()))
        ):
            return plain or {}
        problems.append(f"{at}={value!r} must be a block{' of words' * words}.")
    elif plain is None or (isinstance(plain, list) and all(isinstance(entry, str) for entry in plain)):
        return tuple(plain or ())
    else:
        problems.append(f"{at}={value!r} must be a list of words.")
    return value


def _plain(value: Any) -> Any:
    """An OmegaConf node as plain dicts and lists."""
    if hasattr(value, "keys"):
        return {str(key): _plain(value[key]) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(entry) for entry in value]
    return value
