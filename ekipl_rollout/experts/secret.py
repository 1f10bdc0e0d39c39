"""An API key that cannot be printed, logged, pickled or found in a traceback's locals by accident."""

import os
import re

from ekipl_rollout.errors import SettingsError

KEYLESS = "EMPTY"  # what servers without keys (vLLM) are sent; the SDKs refuse to send nothing

_LOOKS_LIKE_A_KEY = re.compile(r"sk-[\w-]{6,}|AIza[\w-]{6,}|ya29\.[\w.-]+|[Bb]earer\s+\S{1,4096}")


class Secret:
    """Holds a key; only `reveal()` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str):
        self._value = value

    @classmethod
    def from_env(cls, name: str | None) -> "Secret":
        """Reads the key in the process that will use it. Raises SettingsError for a key that no header can carry."""
        if name is None:
            return cls(KEYLESS)
        value = os.environ.get(name, "").strip()
        if not value:
            raise SettingsError(f"environment variable {name} is not set or empty; it should hold an API key.")
        if not value.isascii() or any(c.isspace() for c in value):
            raise SettingsError(
                f"environment variable {name} holds blanks or non-ASCII characters; that is no API key."
            )
        return cls(value)

    def reveal(self) -> str:
        return self._value

    def redact(self, text: str) -> str:
        """`text` without this key and without anything that looks like one; at most 300 characters."""
        text = text[:5000]
        if self._value != KEYLESS:
            text = text.replace(self._value, "[key]")
        return _LOOKS_LIKE_A_KEY.sub("[key]", text)[:300]

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self):
        raise TypeError("a key does not leave its process")
