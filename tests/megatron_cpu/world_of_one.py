"""One process: verl's Megatron engine beside transformers and beside verl's FSDP engine.

python -m tests.megatron_cpu.world_of_one FOLDER     leaves models, what worlds of two are compared with, found.json
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import verl  # noqa: F401  imports the plugins first
from safetensors.torch import load_file
from verl.utils.megatron_utils import unwrap_model

from recipe.ekipl.megatron.model import Qwen2VLMegatronModel
from tests.megatron_cpu.engines import fields, fsdp, join, log_probs, megatron, update, updated, weights
from tests.megatron_cpu.found import average, differences, error, farthest
from tests.megatron_cpu.rows import advantages, build_model, expected, make_rows, padded

MODELS = {"untied": ("qwen2_vl", False), "tied": ("qwen2_vl", True), "qwen2_5": ("qwen2_5_vl", False)}
UPDATES = (("untied", "selected"), ("untied", "all"), ("tied", "selected"))


def log_prob_errors(folder: Path) -> dict[str, float]:
    """model and format -> largest difference to transformers over all tokens of all answers."""
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


@contextlib.contextmanager
def positions_along_the_text():
    """Inside, pictures get the positions of text: what a bridge that overlooks M-RoPE would do."""
    computed = Qwen2VLMegatronModel.positions
    Qwen2VLMegatronModel.positions = lambda self, ids, valid, _: computed(self, ids, valid, None)
    try:
        yield
    finally:
        Qwen2VLMegatronModel.positions = computed


def export_errors(folder: Path) -> dict[str, float]:
    """model -> largest difference between what is sent to vLLM and the checkpoint file."""
    errors = {}
    for name in MODELS:
        file = load_file(folder / name / "model.safetensors")
        errors[name] = farthest(weights(megatron(folder / name, forward_only=True)), file)
    return errors


def updates(folder: Path) -> dict[str, dict]:
    """model and baseline -> what three updates by each engine on the same rows come to."""
    found = {}
    for model, baseline in UPDATES:
        at = folder / model
        rows, right, before = make_rows(at), torch.load(at / "expected.pt"), load_file(at / "model.safetensors")
        data = fields(right, (right != 0).long(), advantages((right != 0).float(), baseline))
        theirs = updated(fsdp(at), rows, data, packed=False)
        torch.save({"fields": data, **theirs}, at / f"updated-{baseline}.pt")
        found[f"{model} {baseline}"] = {
            **differences(updated(megatron(at), rows, data), theirs),
            "moved": {"log_probs": error(theirs["log_probs"], right), "weights": average(theirs["weights"], before)},
        }
    return found


def resumed(folder: Path) -> dict[str, Any]:
    """Two updates, saved, and a third: beside the third after the checkpoint is loaded into a new engine."""
    at, saved = folder / "untied", str(folder / "saved")
    rows, data = make_rows(at), torch.load(at / "updated-selected.pt")["fields"]
    engine = megatron(at)
    for _ in range(2):
        update(engine, rows, data)
    engine.save_checkpoint(saved, global_step=2)
    straight = update(engine, rows, data)
    again = megatron(at)
    with torch.no_grad():  # in float32, which verl does not let through, the optimizer's parameters are the model's own
        again.load_checkpoint(saved, del_local_after_load=False)
    steps = {group["step"] for group in again.optimizer.param_groups if group["params"]}
    return {
        "adam_steps": sorted(steps),
        "numbers": update(again, rows, data) == straight,
        "weights": farthest(weights(again), weights(engine)),
    }


def recomputed(folder: Path) -> dict[str, float | bool]:
    """One update that keeps no activations, neither the decoder's nor the vision tower's."""
    at = folder / "untied"
    theirs = torch.load(at / "updated-selected.pt")
    engine = megatron(at, recompute_granularity="full", recompute_method="uniform", recompute_num_layers=1)
    found, right = update(engine, make_rows(at), theirs["fields"]), theirs["steps"][0]
    return {
        "vision": unwrap_model(engine.module[0]).visual.is_gradient_checkpointing,
        "grad_norm": abs(found["grad_norm"] / right["grad_norm"] - 1),
    }


def main(folder: Path) -> None:
    join()
    for name, (kind, tied) in MODELS.items():
        build_model(folder / name, kind, tied)
    found = {
        "log_probs": log_prob_errors(folder),
        "export": export_errors(folder),
        "updates": updates(folder),
        "resumed": resumed(folder),
        "recomputed": recomputed(folder),
    }
    (folder / "found.json").write_text(json.dumps(found))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
