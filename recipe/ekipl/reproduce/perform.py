"""Does one piece: starts the experts that it needs, runs its commands, keeps their log, and marks it as done."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.reproduce.pieces import Piece

START_SECONDS = 120.0


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


def perform(out: Path, piece: Piece, threads: int | None = None) -> float:
    """Seconds that it took. `threads`: of each of its processes, where the user has not said. Raises PieceError."""
    folder, start = out / piece.name, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with experts(piece, folder) as address, open(folder / "piece.log", "ab") as log:
        environment = {**({"OMP_NUM_THREADS": str(threads)} if threads else {}), **os.environ, **address}
        for command in piece.commands:
            log.write(f"$ {' '.join(command[1:])}\n".encode())
            log.flush()
            status = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
            if status:
                tail = (folder / "piece.log").read_text(errors="replace")[-2000:]
                raise PieceError(
                    f"{piece.name} failed with status {status}; the end of {folder / 'piece.log'}:\n{tail}"
                )
    seconds = time.monotonic() - start
    mark_of(out, piece).write_text(json.dumps({"seconds": round(seconds, 1), "commands": _digest(piece)}))
    return seconds


def _digest(piece: Piece) -> str:
    return hashlib.sha256(json.dumps([command[1:] for command in piece.commands]).encode()).hexdigest()


@contextlib.contextmanager
def experts(piece: Piece, folder: Path) -> Iterator[dict[str, str]]:
    """Where the demo experts are, for the piece's commands; while it lasts they answer on loopback."""
    if piece.world is None:
        yield {}
        return
    ready = folder / "experts.url"
    ready.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "recipe.ekipl.tiny.demo_experts",
        "--data",
        str(piece.world),
        "--ready",
        str(ready),
    ]
    for name, skill in zip(("demo-a", "demo-b"), piece.skills, strict=True):
        command += ["--expert", f"{name}:skill={skill}"]
    with open(folder / "experts.log", "ab") as log:
        server = subprocess.Popen([*command, "--seed", str(piece.seed)], stdout=log, stderr=log)
    try:
        _wait(server, ready, folder / "experts.log")
        yield {"EKIPL_DEMO_URL": ready.read_text()}
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen, ready: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (ready.exists() and ready.read_text()):
        if server.poll() is not None or time.monotonic() > deadline:
            raise PieceError(f"the demo experts did not start; the end of {log}:\n{log.read_text()[-1000:]}")
        time.sleep(0.2)
