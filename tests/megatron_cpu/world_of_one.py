"""One process: verl's Megatron engine beside transformers and beside verl's FSDP engine.

python -m tests.megatron_cpu.world_of_one FOLDER      models and what a world of two is compared with
"""

import contextlib
import json
import sys
from pathlib import Path

import torch
import verl  # noqa: F401  imports the plugins first
from torch import Tensor

from recipe.ekipl.megatron.model import Qwen2VLMegatronModel
from tests.megatron_cpu.engines import join, log_probs, megatron
from tests.megatron_cpu.rows import build_model, expected, make_rows, padded

MODELS = {"untied": ("qwen2_vl", False), "tied": ("qwen2_vl", True), "qwen2_5": ("qwen2_5_vl", False)}


def log_prob_errors(folder: Path) -> dict[str, float]:
    """model/format -> largest difference to transformers over all tokens of all answers."""
    errors = {}
    for name in MODELS:
        rows = make_rows(folder / name)
        right = padded(expected(folder / name, rows))
        torch.save(right, folder / name / "expected.pt")
        for packed in (False, True):
            engine = megatron(folder / name, packed, forward_only=True)
            found = log_probs(engine, rows, packed)
            errors[f"{name} {'packed' if packed else 'padded'}"] = error(found, right)
    with positions_along_the_text():
        errors["positions along the text"] = error(log_probs(engine, rows), right)
    return errors


def error(found: Tensor, right: Tensor) -> float:
    return (found - right)[right != 0].abs().max().item()


@contextlib.contextmanager
def positions_along_the_text():
    """Inside, pictures get the positions of text: what a bridge that overlooks M-RoPE would do."""
    computed = Qwen2VLMegatronModel.positions
    Qwen2VLMegatronModel.positions = lambda self, ids, valid, _: computed(self, ids, valid, None)
    try:
        yield
    finally:
        Qwen2VLMegatronModel.positions = computed


def main(folder: Path) -> None:
    join()
    for name, (kind, tied) in MODELS.items():
        build_model(folder / name, kind, tied)
    found = {"log_probs": log_prob_errors(folder)}
    (folder / "found.json").write_text(json.dumps(found))
    print(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
