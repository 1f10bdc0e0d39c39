"""One of two processes over gloo: tensor, pipeline and data parallelism beside the numbers that world_of_one left.

python -m tests.megatron_cpu.world_of_two FOLDER RANK     leaves found-RANK.json
"""

import json
import sys
from pathlib import Path

import torch
import verl  # noqa: F401  imports the plugins first
from megatron.core import parallel_state
from safetensors.torch import load_file

from tests.megatron_cpu.engines import join, log_probs, megatron, updated, weights
from tests.megatron_cpu.found import differences, error, farthest
from tests.megatron_cpu.rows import make_rows

LAYOUTS = {"TP 2": {"tp": 2}, "PP 2": {"pp": 2}, "DP 2": {}}


def look(folder: Path, mine: slice, layout: dict[str, int]) -> dict:
    """What this rank finds of its rows before and after three updates."""
    rows, right = make_rows(folder)[mine], torch.load(folder / "expected.pt")[mine]
    theirs = torch.load(folder / "updated-selected.pt")
    data = {name: value[mine] for name, value in theirs["fields"].items()}
    theirs["log_probs"] = theirs["log_probs"][mine]
    engine = megatron(folder, **layout)
    found = log_probs(engine, rows)
    return {
        "log_probs": None if found is None else error(found, right),
        "export": farthest(weights(engine), load_file(folder / "model.safetensors")),
        "update": differences(updated(engine, rows, data), theirs),
    }


def main(folder: Path, rank: int) -> None:
    join(rank, 2)
    found = {}
    for name, layout in LAYOUTS.items():
        mine = slice(None) if layout else slice(rank, None, 2)
        for model in ("untied", "tied"):
            found[f"{name} {model}"] = look(folder / model, mine, layout)
        parallel_state.destroy_model_parallel()
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
