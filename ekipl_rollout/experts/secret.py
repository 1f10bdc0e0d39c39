"""An API key that cannot be printed, logged, pickled or found in a traceback's locals by accident."""

import os
import re
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.inert import printable
from ekipl_rollout.settings import ExpertSettings
from ekipl_rollout.settings.expert_problems import key_file_problem

KEYLESS = "EMPTY"  # what servers without keys (vLLM) are sent; the SDKs refuse to send nothing

# wider than what a setting may look like: too much taken out of a message harms nobody
_MAYBE_A_KEY = re.compile(r"sk-[\w-]{6,}|AIza[\w-]{6,}|ya29\.[\w.-]+|[Bb]earer\s+\S{1,4096}")


class Secret:
    """Holds a key; only `reveal()` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str):
        self._value = value

    @classmethod
    def of(cls, settings: ExpertSettings) -> "Secret":
        """The key of an expert, read in the process that will use it. Raises SettingsError for an unusable one."""
        return cls.from_file(settings.api_key_file) if settings.api_key_file else cls.from_env(settings.api_key_env)

    @classmethod
    def from_env(cls, name: str | None) -> "Secret":
        if name is None:
            return cls(KEYLESS)
        value = os.environ.get(name, "").strip()
        if not value:
            raise SettingsError(f"environment variable {name} is not set or empty; it should hold an API key.")
        return cls._checked(value, f"environment variable {name}")

    @classmethod
    def from_file(cls, path: str) -> "Secret":
        if problem := key_file_problem(path):
            raise SettingsError(f"the key file {path} {problem}")
        value = Path(path).expanduser().read_text(encoding="utf-8", errors="replace").strip()
        if not value:
            raise SettingsError(f"the key file {path} is empty.")
        return cls._checked(value, f"the key file {path}")

    @classmethod
    def _checked(cls, value: str, where: str) -> "Secret":
        if not value.isascii() or any(c.isspace() for c in value):  # no header can carry it
            raise SettingsError(f"{where} holds blanks or non-ASCII characters; that is no API key.")
        return cls(value)

    def reveal(self) -> str:
        return self._value

    def redact(self, text: str) -> str:
        """`text` without this key and without anything that looks like one, as one line of at most 300 characters that no
        terminal and no log obeys: a provider's words come through here."""
        if self._value != KEYLESS:
            text = text.replace(self._value, "[key]")
        words = _MAYBE_A_KEY.sub("[key]", text[:5000]).split()
        return printable(" ".join(words)[:300], keep="")[:300]

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self):
        raise TypeError("a key does not leave its process")
