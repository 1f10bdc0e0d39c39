"""verl's engines in float32, and the update that is compared: PPO's clipped loss, KL loss, Adam, a cosine schedule."""

import os
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    ActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    McoreEngineConfig,
    McoreOptimizerConfig,
)
from verl.workers.config.checkpoint import McoreCheckpointConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from tests.megatron_cpu.rows import REWARDS, Row, batch

STEPS = 10
COMMON = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 256, "infer_max_token_len_per_gpu": 256}
ADAM = {"lr": 1e-3, "total_training_steps": STEPS, "lr_warmup_steps": 2, "clip_grad": 1.0, "weight_decay": 0.0}


def join(rank: int = 0, size: int = 1) -> None:
    warnings.filterwarnings("ignore")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    dist.init_process_group("cpu:gloo")


def model_config(folder: Path, packed: bool, library: str, **others) -> HFModelConfig:
    return HFModelConfig(
        path=str(folder),
        external_lib=library,
        use_remove_padding=packed,
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa"},
        **others,
    )


def megatron(folder: Path, packed: bool = True, tp: int = 1, pp: int = 1, forward_only: bool = False, **transformer):
    """verl's Megatron engine, initialized. `transformer` overrides Megatron-Core's settings."""
    model = model_config(folder, packed, "tests.megatron_cpu.engine")
    settings = McoreEngineConfig(
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        use_remove_padding=packed,
        forward_only=forward_only,
        override_transformer_config=transformer,
        **COMMON,
    )
    object.__setattr__(settings, "dtype", "float32")  # verl lets only 16 bits through
    optimizer = McoreOptimizerConfig(lr_decay_style="cosine", use_checkpoint_opt_param_scheduler=True, **ADAM)
    return start("megatron", model, settings, optimizer, McoreCheckpointConfig())


def fsdp(folder: Path, **model):
    """verl's FSDP2 engine, initialized. `model` are more settings of the model's."""
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    settings = FSDPEngineConfig(
        strategy="fsdp2", model_dtype="fp32", mixed_precision=precision, use_torch_compile=False, **COMMON
    )
    optimizer = FSDPOptimizerConfig(lr_scheduler_type="cosine", **ADAM)
    chosen = model_config(folder, False, "recipe.ekipl.cpu.engine", **model)
    return start("fsdp2", chosen, settings, optimizer, CheckpointConfig())


def start(backend: str, model, settings, optimizer, checkpoint):
    engine = EngineRegistry.new(
        model_type="language_model",
        backend=backend,
        model_config=model,
        engine_config=settings,
        optimizer_config=optimizer,
        checkpoint_config=checkpoint,
    )
    engine.initialize()
    return engine


def log_probs(engine, rows: list[Row], packed: bool = True) -> Tensor | None:
    """[b, RESPONSE] of the answers; None on ranks without the output layer."""
    with engine.eval_mode():
        found = engine.infer_batch(batch(rows, packed))
    if not engine.is_mp_src_rank_with_outputs():
        return None
    return no_padding_2_padding(found["model_output"]["log_probs"], batch(rows, packed)).float()


def update(engine, rows: list[Row], fields: dict[str, Tensor], packed: bool = True) -> dict[str, float]:
    """One update; its loss, gradient norm and the next learning rate."""
    actor = ActorConfig(
        strategy="megatron", rollout_n=1, ppo_micro_batch_size_per_gpu=-1, ppo_mini_batch_size=len(REWARDS), use_dynamic_bsz=True,
        use_kl_loss=True, kl_loss_coef=0.005, kl_loss_type="low_var_kl",
    )  # fmt: skip
    data = batch(rows, packed, **fields)
    tu.assign_non_tensor(data, update_lr_scheduler=True)
    with engine.train_mode():
        found = engine.train_batch(data, loss_function=partial(ppo_loss, config=actor))
        rate = engine.lr_scheduler_step()
    numbers = {"lr": float(rate[0] if isinstance(rate, list) else rate)}
    if engine.is_mp_src_rank_with_outputs():
        numbers["grad_norm"] = float(found["metrics"]["grad_norm"])
        numbers["loss"] = float(sum(found["loss"]))
    return numbers


def weights(engine) -> dict[str, Tensor]:
    """Hugging Face name -> whole tensor, as verl sends them to vLLM; names, and no tied twin, as in a checkpoint file."""
    pairs, _ = engine.get_per_tensor_param()
    sent = {plain(name): value.detach().clone() for name, value in pairs}
    if engine.model_config.hf_config.tie_word_embeddings:
        sent.pop("lm_head.weight", None)  # FSDP's engine sends it twice
    return sent


def plain(name: str) -> str:
    """transformers 5 writes checkpoints under its older names."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def updated(engine, rows: list[Row], data: dict[str, Tensor], packed: bool = True) -> dict:
    """Three updates, the first of them at learning rate 0: their numbers, and the log-probabilities and weights after."""
    steps = [update(engine, rows, data, packed) for _ in range(3)]
    return {"steps": steps, "log_probs": log_probs(engine, rows, packed), "weights": weights(engine)}


def fields(log_prob: Tensor, mask: Tensor, advantage: Tensor) -> dict[str, Tensor]:
    """Old and reference log-probabilities a little beside the model's own, so that ratio, clipping and KL all act."""
    wave = torch.sin(torch.arange(log_prob.numel(), dtype=torch.float32)).view_as(log_prob)
    old, reference = log_prob + 0.3 * wave, log_prob - 0.2 * wave
    return {"old_log_probs": old * mask, "ref_log_prob": reference * mask, "advantages": advantage}
