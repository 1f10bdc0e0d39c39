"""What the tests of the evaluation share: rows on disk, and somebody who answers without an engine."""

import hashlib
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.ekipl.evaluate.answers import AnswerFile
from recipe.ekipl.evaluate.ask import Given, ask_missing, seed_of
from recipe.ekipl.evaluate.asked import row_digest
from recipe.ekipl.evaluate.rows import EvalSplit, read_rows


def write_rows(path: Path, *changes: dict) -> EvalSplit:
    rows = [
        {
            "data_source": "clevr_math",
            "prompt": [{"role": "user", "content": "<image>How many?"}],
            "images": [{"bytes": b"PNG"}],
            "reward_model": {"ground_truth": "3"},
            "extra_info": {"id": f"r{i}", "index": i},
            **change,
        }
        for i, change in enumerate(changes)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return EvalSplit("own", path)


class BatchDependent:
    """Answers as a batched engine does: what comes out depends on what else is in the batch."""

    def __init__(self, stop_after: int | None = None, slow: float = 0.0):
        self.calls, self.stop_after, self.slow = 0, stop_after, slow

    def answer(self, wanted):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        time.sleep(self.slow)
        batch = hashlib.sha256(repr([(row.id, sample) for row, sample in wanted]).encode()).hexdigest()
        return [Given(f"{batch[:8]} {row.id} {seed_of(0, row.id, s)} \u2713\ud800", "finished", 5) for row, s in wanted]

    def close(self):
        pass


def evaluate_into(folder: Path, split: EvalSplit, answerer, samples=3, size=4, **asked) -> AnswerFile:
    rows = list(read_rows(split))
    digests = {row.id: row_digest({"model": "m", **asked}, row) for row in rows}
    file = AnswerFile(folder, digests)
    ask_missing(iter(rows), digests, file, lambda: answerer, samples, size, lambda n: None)
    return file


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
