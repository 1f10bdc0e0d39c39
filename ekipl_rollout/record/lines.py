"""Files of JSON lines: plain, compressed when the name ends in .gz, `-` for stdin and stdout."""

import contextlib
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ekipl_rollout.errors import RecordError

MOST_CHARACTERS = 64_000_000  # of a line: a few kilobytes of .gz can hold one that fills the memory


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """A file for nobody else's eyes (0600) that appears under its name once it is complete."""
    if str(path) == "-":
        yield sys.stdout
        return
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        raw = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        packed = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else raw
        with raw, packed, io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text:
            yield text
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Iterable[str]]:
    if str(path) == "-":
        yield sys.stdin
        return
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        yield _bounded(file, path)


def _bounded(file: IO[str], path: Path) -> Iterator[str]:
    """Its lines. Raises RecordError for a compressed file that is damaged, and for a line without an end."""
    try:
        while line := file.readline(MOST_CHARACTERS):
            if len(line) == MOST_CHARACTERS and not line.endswith("\n"):
                raise RecordError(f"{path} has a line of more than {MOST_CHARACTERS} characters; those are no answers")
            yield line
    except (EOFError, zlib.error) as error:
        raise RecordError(f"{path} is damaged, or was not copied completely: {error}") from None


def to_line(values: dict[str, Any]) -> str:
    """Readable in any script, unless a text holds half a character (both SDKs deliver those), which UTF-8 cannot."""
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(values, ensure_ascii=True)
    return line + "\n"
