"""What is known about models before anybody is asked: prices and shutdown dates, each with its date (models.yaml)."""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import yaml

TABLE = Path(__file__).parent / "models.yaml"


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens."""

    input: float
    output: float
    read: str | None = None
    """Day on which it was looked up, as YYYY-MM-DD; None when nobody said."""

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """Dollars for so many tokens. Hidden reasoning is output."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


@dataclass(frozen=True)
class KnownModel:
    """One line of the table."""

    price: Price
    picture_tokens: int | None = None
    shutdown: date | None = None
    instead: str | None = None


@lru_cache(maxsize=1)
def known_models() -> dict[tuple[str, str], KnownModel]:
    """(kind, model) -> what the table says."""
    found = {}
    for entry in yaml.safe_load(TABLE.read_text(encoding="utf-8")):
        known = KnownModel(
            Price(entry["input"], entry["output"], entry["read"]),
            entry.get("picture_tokens"),
            date.fromisoformat(entry["shutdown"]) if entry.get("shutdown") else None,
            entry.get("instead"),
        )
        found.update({(entry["kind"], model): known for model in entry["models"]})
    return found
