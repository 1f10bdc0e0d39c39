"""Several pieces at a time, each once those that it needs are done."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from recipe.ekipl.reproduce.pieces import Piece


def run_all(pieces: Sequence[Piece], work: Callable[[Piece], object], jobs: int) -> None:
    """`work` for each of `pieces`, in their order as far as needs allow; a need that is not among them is done.

    When one raises, nothing more is begun, those that are under way come to their end, and it is raised again.
    """
    left, running = list(pieces), dict[Future, Piece]()
    with ThreadPoolExecutor(jobs) as pool:
        while left or running:
            for piece in _ready(left, running.values())[: jobs - len(running)]:
                left.remove(piece)
                running[pool.submit(work, piece)] = piece
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(ended)
                ended.result()


def makespan(pieces: Sequence[Piece], minutes: Mapping[str, float], jobs: int) -> float:
    """What `run_all` would take, by each piece's own minutes."""
    left, running, now = list(pieces), dict[str, tuple[float, Piece]](), 0.0
    while left or running:
        for piece in _ready(left, [piece for _, piece in running.values()])[: jobs - len(running)]:
            left.remove(piece)
            running[piece.name] = (now + minutes[piece.name], piece)
        now, ended = min(running.values(), key=lambda entry: entry[0])
        del running[ended.name]
    return now


def _ready(left: Sequence[Piece], running: Iterable[Piece]) -> list[Piece]:
    """Those whose needs neither wait nor run."""
    unfinished = {piece.name for piece in (*left, *running)}
    return [piece for piece in left if not unfinished.intersection(piece.needs)]
