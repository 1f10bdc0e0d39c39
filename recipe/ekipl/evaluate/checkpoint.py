"""A checkpoint in whatever form -> a Hugging Face folder that vLLM can load.

What verl 0.9.1 leaves behind (verl/utils/checkpoint): <run>/checkpoints/global_step_<n>/actor/ with

    huggingface/         config and tokenizer; weights as well with checkpoint.save_contents=[..., hf_model]
    model_world_size_*   FSDP shards
    model/huggingface    Megatron's, with weights where its bridge writes them
    model/dist_ckpt      Megatron shards (use_dist_checkpointing=True)

FSDP shards alone are merged by verl's own tool (python -m verl.model_merger), once, into <actor>/huggingface-merged. Megatron
shards alone are refused: that tool builds the model by a table that holds text models only (verl/models/mcore/registry.py:
MODEL_INITIALIZER_REGISTRY), takes no weight outside of the decoder, and reads a config that verl saves with Hugging Face
weights only.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl import cpu

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TRACKER = "latest_checkpointed_iteration.txt"
MERGED = "huggingface-merged"
STEP = re.compile(r"global_step_(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder and where it comes from."""

    folder: Path
    """Hugging Face folder; for shards the place where the merged one goes."""

    shards: Path | None = None
    """verl's folder with FSDP shards, when they have to be merged first."""

    run_dir: Path | None = None
    """Folder of the training run, when the path lies in one."""

    step: int | None = None

    @property
    def samples_seen(self) -> int | None:
        """Training rows that the policy had seen, by the run's plan; None when that cannot be known."""
        plan = self.run_dir / "plan.json" if self.run_dir else None
        if plan is None or not plan.exists() or self.step is None:
            return None
        return self.step * int(json.loads(plan.read_text())["batch"])


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`: a Hugging Face folder, a run, its checkpoints, one step of them, or the actor's folder.

    Raises SettingsError with what was looked for.
    """
    if not path.is_dir():
        raise SettingsError(f"--model {path} is no folder.")
    step = path
    if (path / "checkpoints" / TRACKER).exists():
        step = _latest(path / "checkpoints")
    elif (path / TRACKER).exists():
        step = _latest(path)
    for folder in (step, step / "actor"):
        for weights in (folder, folder / "huggingface", folder / "model" / "huggingface"):
            if (weights / "config.json").exists() and has_weights(weights):
                return _located(weights)
    for folder in (step, step / "actor"):
        if any(folder.glob("model_world_size_*_rank_*.pt")):
            merged = folder / MERGED
            return _located(merged, None if has_weights(merged) else folder)
    raise SettingsError(_why_not(path, step))


def _latest(folder: Path) -> Path:
    return folder / f"global_step_{(folder / TRACKER).read_text().strip()}"


def has_weights(folder: Path) -> bool:
    return any(True for pattern in WEIGHTS for _ in folder.glob(pattern))


def _located(folder: Path, shards: Path | None = None) -> Checkpoint:
    """With the run and the step that the path tells."""
    for parent in folder.resolve().parents:
        found = STEP.fullmatch(parent.name)
        if found:
            in_run = parent.parent.name == "checkpoints"
            return Checkpoint(folder, shards, parent.parent.parent if in_run else None, int(found[1]))
    return Checkpoint(folder, shards)


def _why_not(path: Path, step: Path) -> str:
    if (step / "data.pt").exists() and not (step / "actor").is_dir():
        return (
            f"--model {path}: {step} holds no model any more; verl keeps only the newest "
            "(trainer.max_actor_ckpt_to_keep). Choose a later step."
        )
    if any((folder / "model" / "dist_ckpt").is_dir() for folder in (step, step / "actor")):
        return (
            f"--model {path}: {step} holds its weights as Megatron shards alone (model/dist_ckpt), of which verl 0.9.1 makes no "
            "Hugging Face model with a vision tower. Let the run go on with hf_model in "
            "actor_rollout_ref.actor.checkpoint.save_contents, and take its next checkpoint."
        )
    return (
        f"--model {path} holds no model. Looked in {step} and its actor/ for a Hugging Face folder with weights and for FSDP "
        "shards (model_world_size_*)."
    )


def merge(checkpoint: Checkpoint) -> Path:
    """The checkpoint's Hugging Face folder, merged by verl's own tool when there are only shards.

    verl's merger writes bfloat16, whatever the shards are. Raises SettingsError with the end of its output.
    """
    if checkpoint.shards is None:
        return checkpoint.folder
    partial = checkpoint.folder.with_name(checkpoint.folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    options = ["--backend", "fsdp", "--local_dir", str(checkpoint.shards), "--target_dir", str(partial)]
    platform = cpu.environment() if cpu.is_selected() else {}
    print(f"  merging     {checkpoint.shards} with verl's model merger", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "verl.model_merger", "merge", *options],
        env={**os.environ, **platform},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise SettingsError(
            f"verl's model merger could not merge {checkpoint.shards} (status {done.returncode}). "
            f"The end of what it said:\n{done.stdout[-2000:]}"
        )
    partial.rename(checkpoint.folder)
    return checkpoint.folder


def from_hub(name: str, download: bool) -> Path:
    """The local folder of a model on the hub; downloaded first when it is not here, and `download` allows it."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=not download))
    except Exception as error:  # the hub's client raises many kinds; all mean that there is no model to evaluate
        what = "the hub did not give it" if download else "it was not downloaded yet (a dry run does not)"
        raise SettingsError(f"--model {name} is no folder here, and {what}: {error}") from None
