"""Every group's answers on disk, for eyes and for the report: run_dir/groups/<step>.<process>.jsonl.gz.

A line a group. A process that is killed leaves at most one torn line at the end, which `read_groups` passes over.
groups/<step>.learned.json.gz holds the advantages and weights with which its kept answers went into the update.
"""

import gzip
import json
import logging
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ekipl_rollout.answer import Answer, Candidate, Selection

logger = logging.getLogger(__name__)

MAX_TEXT = 8_000  # characters of an answer that are kept
MAX_BYTES = 2_000_000_000  # a process stops writing beyond; training goes on


class GroupWriter:
    """Appends groups; one object a process."""

    def __init__(self, run_dir: str | Path):
        self.folder = Path(run_dir) / "groups"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process, self._written = uuid.uuid4().hex[:8], 0

    def write(
        self, step: int, row: dict[str, Any], selection: Selection, unusable: Sequence[tuple[Answer, str]] = ()
    ) -> None:
        """`unusable`: answers that were never judged, with the reason."""
        if self._written > MAX_BYTES:
            return
        answers = [_answer(c, "") for c in selection.kept] + [_answer(c, why) for c, why in selection.dropped]
        group = {"step": step, **row, "answers": answers, "unusable": [_unusable(*entry) for entry in unusable]}
        line = json.dumps(group, ensure_ascii=True, default=str) + "\n"
        packed = gzip.compress(line.encode("ascii"), 6)  # a member of its own: readable whatever happens later
        try:
            with open(self.folder / f"{step:06d}.{self._process}.jsonl.gz", "ab") as file:
                file.write(packed)
        except OSError as error:  # a full disk costs what is for eyes, and no group
            logger.warning("%s: groups cannot be written any more (%s); training goes on", self.folder, error)
            self._written = MAX_BYTES + 1
            return
        self._written += len(packed)
        if self._written > MAX_BYTES:
            logger.warning(
                "%s: this process has written %.1f GB of groups and stops; training goes on",
                self.folder,
                MAX_BYTES / 1e9,
            )


def _unusable(answer: Answer, reason: str) -> dict[str, Any]:
    return {"source": answer.source, "reason": reason, "text": answer.text[:MAX_TEXT]}


def _answer(candidate: Candidate, dropped: str) -> dict[str, Any]:
    return {
        "source": candidate.source,
        "session": candidate.session,
        "score": candidate.score,
        "parts": {k: v for k, v in candidate.parts.items() if isinstance(v, (int, float, str))},
        "kept": not dropped,
        "dropped": dropped,
        "length": candidate.length,
        "text": candidate.text[:MAX_TEXT],
    }


def group_paths(run_dir: str | Path) -> list[tuple[int, Path]]:
    """(step, file) of a run, in order of steps."""
    return sorted((int(path.name.split(".")[0]), path) for path in (Path(run_dir) / "groups").glob("*.jsonl.gz"))


def read_groups(path: Path) -> Iterator[dict[str, Any]]:
    """The groups of one file; a torn end is passed over."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)
    except (EOFError, zlib.error, gzip.BadGzipFile, json.JSONDecodeError):
        return


Learned = dict[str, dict[str, list[float]]]
"""uid -> session -> [advantage, weight]"""


def write_learned(run_dir: str | Path, step: int, rows: Iterable[tuple[str, str, float, float]]) -> None:
    """`rows`: (uid, session, advantage, weight) of each answer that a step trains on."""
    found: Learned = {}
    for uid, session, advantage, weight in rows:
        found.setdefault(uid, {})[session] = [advantage, weight]
    path = _learned_path(run_dir, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(gzip.compress(json.dumps(found).encode("ascii"), 6))
    partial.replace(path)


def read_learned(run_dir: str | Path, step: int) -> Learned:
    """Empty for a step that is not there (yet)."""
    try:
        return json.loads(gzip.decompress(_learned_path(run_dir, step).read_bytes()))
    except FileNotFoundError:
        return {}


def _learned_path(run_dir: str | Path, step: int) -> Path:
    return Path(run_dir) / "groups" / f"{step:06d}.learned.json.gz"


def forget_after(run_dir: str | Path, step: int) -> int:
    """Deletes the groups of later steps: a resumed run makes them again. Returns how many files went."""
    late = [path for number, path in group_paths(run_dir) if number > step]
    for path in late:
        path.unlink()
    return len(late)
