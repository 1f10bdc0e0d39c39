"""One engine, one pass against a stopped and resumed one. Run by test_evaluate.py in a process of its own: vLLM in this
process changes torch for good. Prints one JSON object."""

import hashlib
import json
import os
import sys
from pathlib import Path

from recipe.ekipl import cpu
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.synthetic.write import write_world


class Stops:
    """An answerer that is interrupted after some batches."""

    def __init__(self, answerer, after: int):
        self._answerer, self._left = answerer, after

    def answer(self, wanted):
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._answerer.answer(wanted)


def evaluate(folder: Path, rows, answerer, samples: int = 5) -> bytes:
    from recipe.ekipl.evaluate.answers import AnswerFile
    from recipe.ekipl.evaluate.ask import ask_missing
    from recipe.ekipl.evaluate.asked import row_digest

    digests = {row.id: row_digest({}, row) for row in rows}
    file = AnswerFile(folder, digests)
    ask_missing(rows, digests, file, lambda: answerer, samples, size=20, progress=lambda n: None)
    return file.final.read_bytes()


def main(root: Path) -> dict:
    write_world(root / "world", ["spatial_transformation"], train=0, base=0, test=12, seed=1)
    convert(root / "world", root / "rows", ["spatial_transformation"], "plain")
    if cpu.wanted():
        os.environ.update(cpu.environment())
    from recipe.ekipl.evaluate.on_vllm import Engine, Sampling, VllmAnswerer
    from recipe.ekipl.evaluate.rows import find_splits, read_rows
    from recipe.ekipl.tiny.model import build

    build(root / "model", seed=0)
    rows = list(read_rows(find_splits(root / "rows", ["trance"])[0]))
    llm = VllmAnswerer(root / "model", Sampling(temperature=1.0, max_tokens=16, seed=3), Engine(), max_pictures=2)
    one = evaluate(root / "one", rows, llm)
    stops = 0
    while True:
        try:
            resumed = evaluate(root / "two", rows, Stops(llm, after=1))
            break
        except KeyboardInterrupt:
            stops += 1
    long = write_long_row(root)
    given = llm.answer([(rows[0], 0), (long, 0), (long, 1), (rows[1], 0)])
    lines = [json.loads(line) for line in one.decode().splitlines()]
    return {
        "one": hashlib.sha256(one).hexdigest(),
        "resumed": hashlib.sha256(resumed).hexdigest(),
        "stops": stops,
        "keys": [(line["row"], line["sample"]) for line in lines],
        "texts": len({line["text"] for line in lines}),
        "statuses": sorted({line["status"] for line in lines}),
        "tokens": max(line["tokens"] for line in lines),
        "beside_a_long_one": [answer.status for answer in given],
    }


def write_long_row(root: Path):
    """A row whose prompt no context window of the tiny model holds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from recipe.ekipl.evaluate.rows import EvalSplit, read_rows

    row = {
        "data_source": "trance",
        "prompt": [{"role": "user", "content": "How many red objects are there? " * 1000}],
        "images": [],
        "reward_model": {"ground_truth": "change_size(0, small)"},
        "extra_info": {"id": "long", "index": 0},
    }
    pq.write_table(pa.Table.from_pylist([row]), root / "long.parquet")
    return next(read_rows(EvalSplit("long", root / "long.parquet")))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
