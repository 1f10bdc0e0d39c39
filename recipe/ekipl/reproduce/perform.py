"""What is left to do, and one piece: starts the experts that it needs, runs its commands, and keeps its log and numbers."""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.lanes import Lanes
from recipe.ekipl.reproduce.kept import keep, mark_of
from recipe.ekipl.reproduce.pieces import Piece, Study
from recipe.ekipl.tiny.serving import serving


class PieceError(EkiplError):
    """A piece failed; the message holds the end of its log."""


def left(study: Study, pieces: Sequence[Piece]) -> list[Piece]:
    """What is to be done of `pieces`: those whose numbers are not kept, and what they need that was not made here."""
    needed = {name for piece in pieces for name in piece.needs}
    todo = {
        piece.name
        for piece in pieces
        if (
            not is_kept(study, piece)
            if piece.leaves_numbers
            else piece.name not in needed and not is_here(study, piece)
        )
    }
    named = {piece.name: piece for piece in pieces}
    for piece in reversed(pieces):  # needs come before whatever needs them
        if piece.name in todo:
            todo |= {name for name in piece.needs if name in named and not is_here(study, named[name])}
    return [piece for piece in pieces if piece.name in todo]


def is_kept(study: Study, piece: Piece) -> bool:
    """Whether its numbers are there, as it is now."""
    mark = mark_of(study.kept / piece.name)
    return mark is not None and mark["digest"] == piece.digest


def is_here(study: Study, piece: Piece) -> bool:
    """Whether it was done on this machine, as it is now."""
    mark = _here(study, piece)
    return mark.exists() and mark.read_text() == piece.digest


def perform(study: Study, piece: Piece, lanes: Lanes) -> float:
    """Seconds that it took. Raises PieceError, ServerError, Stopped."""
    folder, start = _empty_or_its_own(study, piece), time.monotonic()
    log = folder / "piece.log"
    with experts(piece, folder, lanes) as address:
        for command in piece.commands:
            if status := lanes.call(command, log, address):
                tail = log.read_text(errors="replace")[-2000:]
                raise PieceError(f"{piece.name} failed with status {status}; the end of {log}:\n{tail}")
    seconds = time.monotonic() - start
    done = {"seconds": round(seconds, 1), "digest": piece.digest, "base": model_digest(piece.base)}
    keep(folder, study.kept / piece.name, done)
    _here(study, piece).write_text(piece.digest)
    return seconds


def _empty_or_its_own(study: Study, piece: Piece) -> Path:
    """The piece's folder. What another version of it left there is thrown away: a stage would take it for its own."""
    folder = study.out / piece.name
    begun = folder.with_name(f"{folder.name}.begun")
    if folder.exists() and (not begun.exists() or begun.read_text() != piece.digest):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(piece.digest)
    return folder


def _here(study: Study, piece: Piece) -> Path:
    return study.out / f"{piece.name}.done"


def model_digest(folder: Path | None) -> str | None:
    """Short digest of a model's weights; None where there is none."""
    weights = folder and folder / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights and weights.exists() else None


@contextlib.contextmanager
def experts(piece: Piece, folder: Path, lanes: Lanes) -> Iterator[dict[str, str]]:
    """Where the demo experts are, for the piece's commands; while it lasts they answer on loopback."""
    if piece.world is None:
        yield {}
        return
    skilled = [f"{name}:skill={skill}" for name, skill in zip(("demo-a", "demo-b"), piece.skills, strict=True)]
    options = [
        "--data",
        str(piece.world),
        "--seed",
        str(piece.seed),
        *(word for e in skilled for word in ("--expert", e)),
    ]
    ready, log = folder / "experts.url", folder / "experts.log"
    with serving("recipe.ekipl.tiny.demo_experts", *options, ready=ready, log=log, check=lanes.check) as address:
        yield {"EKIPL_DEMO_URL": address}
