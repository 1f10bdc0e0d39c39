"""The answers of one split on disk, and how they survive a kill.

While answers come in, each batch is one line of `answers.partial.jsonl`: a line that a kill has torn is a batch that was
never answered, so that a resumed call asks for exactly the batches that an undisturbed one would have asked for. When
all are there they are written, sorted, to `answers.jsonl`: the file depends neither on order nor on interruptions.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ekipl_rollout.errors import SettingsError

LOOK_BACK = 1 << 16
Key = tuple[str, int]
"""(row id, sample index)"""


class AnswerFile:
    """Answers by (row, sample). A line is {row, sample, asked, status, tokens, text}."""

    def __init__(self, folder: Path, digests: Mapping[str, str]):
        """`digests`: row id -> what is asked about it now; answers to anything else do not count."""
        self.final, self.partial = folder / "answers.jsonl", folder / "answers.partial.jsonl"
        self._digests = digests
        self._order = {row_id: i for i, row_id in enumerate(digests)}
        self.answers: dict[Key, dict[str, Any]] = {}
        self.outdated = 0
        """Answers to rows that have changed since, or are gone; they are left out of the final file."""

        self._take(_lines(self.final))
        for batch in _lines(self.partial):
            self._take(batch)

    def _take(self, answers: Iterable[dict[str, Any]]) -> None:
        for answer in answers:
            if self._digests.get(answer["row"]) == answer["asked"]:
                self.answers[answer["row"], answer["sample"]] = answer
            else:
                self.outdated += 1

    def __contains__(self, key: Key) -> bool:
        return key in self.answers

    def add(self, batch: list[dict[str, Any]]) -> None:
        """Appends a batch; when this returns it is on the disk."""
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        with open(self.partial, "ab+") as file:
            file.truncate(_whole_lines(file))  # a torn line would glue itself to this one
            file.write(json.dumps(batch).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(batch)

    def finish(self) -> None:
        """Writes the final file and lets go of the other. Called when no answer is missing."""
        content = "".join(json.dumps(self.answers[key]) + "\n" for key in sorted(self.answers, key=self._place))
        if not self.final.exists() or self.final.read_text(encoding="ascii") != content:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            part = self.final.with_suffix(".sorting")
            with open(part, "w", encoding="ascii") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.final)
        self.partial.unlink(missing_ok=True)

    def _place(self, key: Key) -> tuple[int, int]:
        return self._order[key[0]], key[1]


def _whole_lines(file: BinaryIO) -> int:
    """Bytes up to the end of the last line that is whole; looks at the end of the file only."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - LOOK_BACK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _lines(path: Path) -> Iterator[Any]:
    """The whole lines of a file; reading changes nothing, so that one may look while another process writes."""
    if not path.exists():
        return
    with open(path, encoding="ascii") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                raise SettingsError(
                    f"{path}, line {number} is no JSON: the file was damaged. Delete that line, and its answers are asked for again."
                ) from None
