"""What a folder of parquet files was made from, so that a finished split is not made again, and a stale one is.

manifest.json: {"<task>/<split>": {"converter", "how", "input": {"file", "bytes", "sha256"}, "files", "refused", ...}}.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipe.ekipl.data.row import How

CONVERTER = 3
"""Goes up when the same input would give other files."""


class Manifest:
    """The manifest of one folder. Every change is on disk at once."""

    def __init__(self, folder: Path):
        self._folder, self._path = folder, folder / "manifest.json"

    def why_not(self, name: str, source: dict[str, Any], how: How) -> str:
        """Why a split has to be converted (again); empty when it is finished."""
        entry = self._read().get(name)
        stem = self._folder / name
        if entry is None:
            return "an older converter made it" if any(stem.parent.glob(f"{stem.name}.*.parquet")) else "new"
        if entry["converter"] != CONVERTER:
            return f"converter {entry['converter']} made it, this is {CONVERTER}"
        if entry["input"]["sha256"] != source["sha256"]:
            return f"{source['file']} has changed"
        if entry["how"] != asdict(how):
            changed = [key for key, value in asdict(how).items() if entry["how"].get(key) != value]
            return f"other options: {', '.join(changed)}"
        lost = [file for file in entry["files"] if _bytes(stem.parent / file) != entry["files"][file]["bytes"]]
        return f"{', '.join(lost)} is gone or was changed" if lost else ""

    def rows(self, name: str) -> dict[str, int]:
        """Rows by file of a finished split."""
        return {file: entry["rows"] for file, entry in self._read()[name]["files"].items()}

    def refused(self, name: str) -> dict[str, int]:
        return self._read()[name]["refused"]

    def note(
        self, name: str, source: dict[str, Any], how: How, rows: dict[str, int], refused: dict[str, int], pictures: str
    ) -> None:
        """A split is finished. `pictures`: digest of every picture in it."""
        folder = (self._folder / name).parent
        files = {file: {"rows": count, "bytes": _bytes(folder / file)} for file, count in rows.items()}
        entry = {"converter": CONVERTER, "how": asdict(how), "input": source, "pictures_sha256": pictures}
        entries = {**self._read(), name: {**entry, "files": files, "refused": refused}}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
        partial.replace(self._path)

    def _read(self) -> dict[str, Any]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}


def describe(path: Path) -> dict[str, Any]:
    """An input file by name, size and content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1
