"""A first look at a split: every row can be asked and judged, and what is asked about it is known by content."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.asked import row_digest
from recipe.ekipl.evaluate.rows import EvalSplit, read_rows


@dataclass
class Scanned:
    """A split without its pictures."""

    split: EvalSplit
    rows: list[dict[str, str]] = field(default_factory=list)
    """id, data_source and truth of the rows that are evaluated."""

    digests: dict[str, str] = field(default_factory=dict)
    """Row id -> digest of what is asked, for every row of the file."""

    most_pictures: int = 0

    @property
    def name(self) -> str:
        return self.split.name

    def keys(self, samples: int) -> list[tuple[str, int]]:
        """(row id, sample) of every answer that is wanted."""
        return [(row["id"], sample) for row in self.rows for sample in range(samples)]


def scan(split: EvalSplit, asked: Mapping[str, Any], limit: int | None) -> Scanned:
    """Reads the whole file once. Raises SettingsError for a row that cannot be used, and for an empty file."""
    found = Scanned(split)
    for row in tqdm(read_rows(split), desc=f"reading {split.name}", unit="row", disable=None, leave=False):
        found.digests[row.id] = row_digest(asked, row)
        found.most_pictures = max(found.most_pictures, len(row.question.images))
        if limit is None or len(found.rows) < limit:
            found.rows.append({"id": row.id, "data_source": row.data_source, "truth": row.truth})
    if not found.rows:
        raise SettingsError(f"{split.path} has no rows.")
    return found
