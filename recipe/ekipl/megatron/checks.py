"""Settings of model_engine=megatron that cannot work with our bridges, or would be wrong without a word."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ekipl_rollout.errors import Lacking
from recipe.ekipl import cpu
from recipe.ekipl.megatron import EXTERNAL_LIB, seams

OURS = ("qwen2_vl", "qwen2_5_vl")
AT = "actor_rollout_ref.actor.megatron"


def problems(config: DictConfig) -> Iterator[str]:
    """Empty for verl's other engines."""
    if config.get("model_engine") != "megatron":
        return
    settings, model = config.actor_rollout_ref.actor.megatron, config.actor_rollout_ref.model
    missing = [name for name, version in seams.installed().items() if version == "missing"]
    if missing and not cpu.is_selected():  # without a GPU this can only be a dry run
        yield Lacking(
            f"model_engine=megatron needs {' and '.join(missing)}, which cannot be found. Install: {seams.INSTALL}"
        )
    yield from _bridge(settings, model)
    yield from _shards(config, settings)
    yield from _wrong(config, settings, model)
    yield from _sizes(config, settings, _checkpoint(model.path))


def problems_of_ours(config: DictConfig) -> Iterator[str]:
    """Those of somebody else's run, where it uses our bridges; its sizes are its own affair."""
    libraries = config.actor_rollout_ref.model.external_lib
    named = [libraries] if isinstance(libraries, str) else list(libraries or [])
    if config.get("model_engine") == "megatron" and EXTERNAL_LIB in named:
        yield from _wrong(config, config.actor_rollout_ref.actor.megatron, config.actor_rollout_ref.model)


def _bridge(settings: DictConfig, model: DictConfig) -> Iterator[str]:
    kind, libraries = _checkpoint(model.path).get("model_type"), model.external_lib
    if kind in OURS and EXTERNAL_LIB not in ([libraries] if isinstance(libraries, str) else list(libraries or [])):
        yield (
            f"actor_rollout_ref.model.external_lib={libraries} does not register a bridge for model_type={kind}, which "
            f"Megatron-Bridge cannot convert by itself. Set {EXTERNAL_LIB}."
        )
    if not settings.use_mbridge or settings.vanilla_mbridge:
        yield (
            f"{AT}.use_mbridge={settings.use_mbridge} vanilla_mbridge={settings.vanilla_mbridge}: only Megatron-Bridge converts "
            "these models. Set use_mbridge=True vanilla_mbridge=False."
        )


def _shards(config: DictConfig, settings: DictConfig) -> Iterator[str]:
    """Weights that no evaluation and no later stage could read (evaluate/checkpoint.py)."""
    saved = list(config.actor_rollout_ref.actor.checkpoint.save_contents)
    if settings.use_dist_checkpointing and "hf_model" not in saved:
        yield (
            f"{AT}.use_dist_checkpointing=True saves the weights as Megatron shards, of which verl 0.9.1 makes no Hugging Face "
            "model with a vision tower: nothing could evaluate them. Set use_dist_checkpointing=False, or add hf_model to "
            f"actor_rollout_ref.actor.checkpoint.save_contents={saved}."
        )


def _wrong(config: DictConfig, settings: DictConfig, model: DictConfig) -> Iterator[str]:
    if model.use_fused_kernels:
        yield "actor_rollout_ref.model.use_fused_kernels=True: verl's fused forward takes a Qwen2-VL for a text model. Set False."
    if settings.override_transformer_config.get("apply_rope_fusion"):
        yield f"{AT}.override_transformer_config.apply_rope_fusion=True gives packed rows wrong M-RoPE positions, silently. Set False."
    if settings.context_parallel_size > 1 or settings.dynamic_context_parallel:
        yield (
            f"{AT}.context_parallel_size={settings.context_parallel_size} dynamic_context_parallel="
            f"{settings.dynamic_context_parallel}: a row with pictures cannot be split. Set 1 and False; use tensor parallelism."
        )
    if not settings.use_distributed_optimizer:
        yield f"{AT}.use_distributed_optimizer=False fails in verl 0.9.1 when weights are loaded to the device. Set True."
    if config.actor_rollout_ref.actor.get("freeze_vision_tower"):
        yield "actor_rollout_ref.actor.freeze_vision_tower=True has no effect on verl's Megatron engine. Set False."


def _sizes(config: DictConfig, settings: DictConfig, checkpoint: dict[str, Any]) -> Iterator[str]:
    tp, pp = settings.tensor_model_parallel_size, settings.pipeline_model_parallel_size
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if devices % (tp * pp):
        yield f"{AT}: tensor_model_parallel_size={tp} x pipeline_model_parallel_size={pp} must divide the {devices} GPUs of the run."
    text = checkpoint.get("text_config") or checkpoint
    for name in ("num_attention_heads", "num_key_value_heads", "vocab_size"):
        if text.get(name, tp) % tp:
            yield f"{AT}.tensor_model_parallel_size={tp} must divide the model's {name}={text[name]}."
    layers = text.get("num_hidden_layers", pp)
    uneven = [name for name in settings.override_transformer_config if "pipeline" in name]
    if layers % pp and not uneven:
        yield (
            f"{AT}.pipeline_model_parallel_size={pp} must divide the model's num_hidden_layers={layers}, or "
            "override_transformer_config.num_layers_in_first_pipeline_stage say how many the first stage gets."
        )


def _checkpoint(path: str) -> dict[str, Any]:
    """config.json of a model on disk; empty for one that is still to be downloaded."""
    file = Path(str(path)).expanduser() / "config.json"
    return json.loads(file.read_text()) if file.is_file() else {}
