"""The same update through verl's actor worker, configured as a run of this recipe configures it."""

import os
import socket
from typing import Any

import numpy as np
import torch

from recipe.ekipl import cpu
from recipe.ekipl.compose import compose_config
from recipe.ekipl.gpu.plain import CLIP, DUAL_CLIP, GRADIENT_NORM, KL
from recipe.ekipl.gpu.rows import Row, draw
from recipe.ekipl.gpu.side import Side
from recipe.ekipl.gpu.sizes import SIZES, Size


def actor_config(folder: str, size: Size, precision: str, attention: str, lr: float):
    """`actor_rollout_ref` of a run, with fixed micro-batches so that both sides pad alike.

    Packing (use_remove_padding) goes with flash-attn: verl's packed attention of Qwen2-VL calls it and nothing else.
    """
    actor, rollout, model = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))
    config = compose_config(
        "ekipl_tiny" if cpu.wanted() else "ekipl_trainer",
        [
            f"{model}.path={folder}",
            f"++{model}.load_tokenizer=false",
            f"++{model}.override_config.attn_implementation={attention}",
            f"{model}.use_remove_padding={attention == 'flash_attention_2'}",
            f"{model}.enable_gradient_checkpointing=false",
            f"{actor}.strategy=fsdp2",
            f"++{actor}.fsdp_config.mixed_precision.param_dtype={precision}",
            f"{actor}.fsdp_config.model_dtype=fp32",
            f"{actor}.use_dynamic_bsz=false",
            f"{actor}.ppo_micro_batch_size_per_gpu={size.micro_batch}",
            f"{actor}.ppo_mini_batch_size={size.groups}",
            f"{actor}.optim.lr={lr}",
            f"{actor}.optim.betas=[0.9,0.999]",
            f"{actor}.optim.override_optimizer_config=null",
            f"{actor}.optim.lr_scheduler_type=constant",
            f"{actor}.optim.lr_warmup_steps=0",
            f"{actor}.optim.weight_decay=0.01",
            f"{actor}.optim.total_training_steps=1000",
            f"{rollout}.n={size.kept}",
            f"{rollout}.log_prob_use_dynamic_bsz=false",
            f"{rollout}.log_prob_micro_batch_size_per_gpu={size.micro_batch}",
            f"data.train_batch_size={size.groups}",
        ],
    )
    return config.actor_rollout_ref


def differences(actor: Any) -> list[str]:
    """Where a composed actor's loss is not the one that plain.py states."""
    wanted = {
        "clip_ratio_low": CLIP,
        "clip_ratio_high": CLIP,
        "clip_ratio_c": DUAL_CLIP,
        "kl_loss_coef": KL,
        "kl_loss_type": "low_var_kl",
        "use_kl_loss": True,
        "loss_agg_mode": "token-mean",
        "entropy_coeff": 0,
    }
    found = {key: actor[key] for key in wanted}
    found["optim.clip_grad"], wanted["optim.clip_grad"] = actor.optim.clip_grad, GRADIENT_NORM
    return [f"{key}={found[key]}, plain has {wanted[key]}" for key in wanted if found[key] != wanted[key]]


class OnVerl(Side):
    """verl's ActorRolloutRefWorker in the role of an actor, without Ray: its methods called as Ray would."""

    def __init__(self, folder: str, size: str, seed: int, device: str, precision: str, attention: str, lr: float):
        super().__init__(device)
        _prepare_process()
        from verl.workers.engine_workers import ActorRolloutRefWorker

        self.size, self.rows = SIZES[size], draw(SIZES[size], seed)
        config = actor_config(folder, self.size, precision, attention, lr)
        if found := differences(config.actor):
            raise ValueError(f"the recipe's loss is no longer what plain.py states: {'; '.join(found)}. Mend plain.py.")
        self.worker = ActorRolloutRefWorker(config=config, role="actor")
        self.worker.init_model()
        self.engine = self.worker.actor.engine

    def platform(self) -> str:
        """What verl takes this machine for."""
        from verl.plugin.platform.platform_manager import get_platform

        return f"{get_platform().device_name} ({type(get_platform()).__name__})"

    def peak_flops(self) -> float | None:
        """bf16 FLOP/s of the device by verl's table of data sheets; None where it has none that means anything."""
        from verl.utils.flops_counter import get_device_flops

        peak = get_device_flops(unit="B") * 1e9 if self.on_gpu else float("inf")
        return peak if peak < float("inf") else None

    def checkpointing(self, on: bool) -> None:
        if on:
            self.engine.module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.engine.module.gradient_checkpointing_disable()

    def log_probs(self) -> list[np.ndarray]:
        """[R] of each row."""
        from verl.workers.utils.padding import response_from_nested

        batch = self._batch(calculate_entropy=False, compute_loss=False)
        found = self.worker.compute_log_prob(batch)["log_probs"]
        found = response_from_nested(found, self._nested([torch.ones(len(row.response)) for row in self.rows]))
        return [log_prob.float().numpy() for log_prob in found.unbind()]

    def update(self, old: list[np.ndarray], ref: list[np.ndarray], advantage: str) -> dict[str, float]:
        """As a step does it: one mini-batch, AdamW. Returns loss and gradient norm before clipping."""
        from verl.utils import tensordict_utils as tu

        batch = self._batch(
            calculate_entropy=False,
            global_batch_size=len(self.rows),
            mini_batch_size=len(self.rows),
            epochs=1,
            seed=0,
            dataloader_kwargs={"shuffle": False},
        )
        batch["old_log_probs"] = self._nested(map(torch.as_tensor, old))
        batch["ref_log_prob"] = self._nested(map(torch.as_tensor, ref))
        batch["advantages"] = self._nested(torch.full((len(r.response),), r.advantage[advantage]) for r in self.rows)
        metrics = tu.get(self.worker.update_actor(batch), "metrics")
        return {"loss": float(np.sum(metrics["loss"])), "gradient_norm": float(np.sum(metrics["grad_norm"]))}

    def parameters(self):
        for name, parameter in self.engine.module.named_parameters():
            yield name, parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter

    @staticmethod
    def _nested(tensors) -> torch.Tensor:
        return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)

    def _batch(self, **settings: Any):
        """The fields that verl's workers find in TransferQueue, and the settings that its trainer sends along."""
        from verl.utils import tensordict_utils as tu

        rows, nested = self.rows, self._nested
        ones = nested(torch.ones(len(row.response), dtype=torch.int64) for row in rows)
        fields = {
            "prompts": nested(row.prompt for row in rows),
            "responses": nested(row.response for row in rows),
            "input_ids": nested(torch.cat([row.prompt, row.response]) for row in rows),
            "position_ids": _jagged_last([row.positions for row in rows]),
            "response_mask": ones,
            "loss_mask": ones,
            "multi_modal_inputs": [self._picture(row) for row in rows],
        }
        return tu.get_tensordict(fields, {"temperature": 1.0, **settings})

    @staticmethod
    def _picture(row: Row) -> dict[str, torch.Tensor]:
        return {"pixel_values": row.pixels, "image_grid_thw": row.grid}


def _jagged_last(tensors: list[torch.Tensor]) -> torch.Tensor:
    """[B, 4, L*]. as_nested_tensor takes the first dimension that can be ragged, and all of them when lengths agree."""
    offsets = torch.tensor([0, *(tensor.shape[-1] for tensor in tensors)]).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(torch.cat(tensors, dim=-1), offsets, jagged_dim=2)


def _prepare_process() -> None:
    """What Ray gives to a worker of a run on one device."""
    if cpu.wanted():
        os.environ.update(cpu.environment())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
