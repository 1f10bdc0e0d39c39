"""Does one piece: starts the experts that it needs, runs its commands, keeps their log, and marks it as done."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.lanes import Lanes
from recipe.ekipl.reproduce.pieces import Piece
from recipe.ekipl.tiny.serving import serving


class PieceError(EkiplError):
    """A piece failed; the message holds the end of its log."""


def mark_of(out: Path, piece: Piece) -> Path:
    return out / f"{piece.name}.done.json"


def seconds_of(out: Path, piece: Piece) -> float | None:
    """How long a finished piece took, its interrupted attempts apart; None where it is not done, or not as it is now."""
    mark = mark_of(out, piece)
    if not mark.exists():
        return None
    done = json.loads(mark.read_text())
    return done["seconds"] if done["commands"] == _digest(piece) else None


def perform(out: Path, piece: Piece, lanes: Lanes) -> float:
    """Seconds that it took. Raises PieceError, ServerError, Stopped."""
    folder, start = out / piece.name, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "piece.log"
    with experts(piece, folder, lanes) as address:
        for command in piece.commands:
            if status := lanes.call(command, log, address):
                tail = log.read_text(errors="replace")[-2000:]
                raise PieceError(f"{piece.name} failed with status {status}; the end of {log}:\n{tail}")
    seconds = time.monotonic() - start
    mark_of(out, piece).write_text(json.dumps({"seconds": round(seconds, 1), "commands": _digest(piece)}))
    return seconds


def _digest(piece: Piece) -> str:
    return hashlib.sha256(json.dumps([command[1:] for command in piece.commands]).encode()).hexdigest()


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
