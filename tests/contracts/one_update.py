"""python -m tests.contracts.one_update FOLDER [--lora]: one update of verl's FSDP2 engine beside the same in plain PyTorch.

Twelve rows of a tiny Qwen2-VL with one, two and no pictures, half of them from experts, with self-normalised weights as
the trainer makes them. Prints what differs, for the paper's loss and for one with every term on expert rows of ours.
With --lora only an adapter of random weights learns.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForImageTextToText
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from ekipl_rollout.answer import POLICY
from ekipl_rollout.on_verl.loss import ekipl_loss
from ekipl_rollout.on_verl.weighing import Rows, compute_fields
from ekipl_rollout.settings import EkiplSettings, LearnSettings
from tests.megatron_cpu.engines import fsdp, join, plain
from tests.megatron_cpu.rows import KEPT, REWARDS, advantages, batch, build_model, make_rows, padded

CLIP, BETA, ENTROPY = 0.2, 0.005, 0.01
SOURCES = [(POLICY, POLICY, "gpt", "gemini")[i % KEPT] for i in range(len(REWARDS))]
SERVER = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "logprobs": True}
EXPERTS = [{**SERVER, "name": "gpt"}, {**SERVER, "name": "gemini"}]
OURS = {"kl_on_experts": False, "entropy_on_experts": False, "clip_on_experts": False, "sft": {"start": 0.3}}


RANK = 4


def main(folder: Path, lora: bool) -> None:
    join()
    build_model(folder)
    if lora:
        add_adapter(folder)
    rows = make_rows(folder)
    model = load(folder)
    log_prob = padded([answer_of(model, row)[0].detach() for row in rows])
    found = {}
    for name, learn in {"papers": {}, "every term of ours": OURS}.items():
        settings = EkiplSettings.from_config({"experts": EXPERTS, "weights": {"mode": "snis"}, "learn": learn})
        fields = fields_of(log_prob, rows, settings)
        # first, because verl's engine replaces methods of transformers' model classes in this process
        found[name] = (settings.learn, fields, plain_update(folder, rows, fields, settings.learn))
    engine = fsdp(folder, lora_rank=RANK, lora_adapter_path=str(folder / "adapter")) if lora else fsdp(folder)
    print(json.dumps({name: compare(engine, rows, *parts) for name, parts in found.items()}))
    dist.destroy_process_group()


def add_adapter(folder: Path) -> None:
    """Beside the model, on every linear layer of it; not the one that changes nothing, with which LoRA begins."""
    from peft import LoraConfig, get_peft_model

    model = load(folder)
    torch.manual_seed(2)
    chosen = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=RANK, target_modules="all-linear")
    adapted = get_peft_model(model, chosen)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    adapted.save_pretrained(folder / "adapter")


def load(folder: Path) -> torch.nn.Module:
    """The model in fp32, with the adapter where there is one."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    if not (folder / "adapter").exists():
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)


def compare(engine, rows: list, learn: LearnSettings, fields: dict, plainly: tuple) -> dict[str, float]:
    """Largest differences of loss and gradient, and how large they are."""
    engine_loss, engine_gradient = verls_update(engine, rows, fields, learn)
    loss, gradient = plainly
    errors = [(engine_gradient[name] - value).abs().max().item() for name, value in gradient.items()]
    weights = fields["rollout_is_weights"][:, 0]
    return {
        "loss": abs(engine_loss - loss),
        "gradient": max(errors),
        "largest gradient": max(value.abs().max().item() for value in gradient.values()),
        "parameters": float(len(errors)),
        "spread of weights": (weights.max() / weights.min()).item(),
    }


def fields_of(log_prob: Tensor, rows: list, settings: EkiplSettings) -> dict[str, Tensor]:
    """[b, RESPONSE] each: as verl and our trainer write them, a little beside the model's own log-probabilities so that
    ratio, clipping and KL all act."""
    mask = padded([torch.ones(len(row.answer)) for row in rows])
    wave = torch.sin(torch.arange(log_prob.numel(), dtype=torch.float32)).view_as(log_prob)
    old, reference = (log_prob + 0.3 * wave) * mask, (log_prob - 0.2 * wave) * mask
    groups = {str(g): group_of(g, old) for g in range(len(rows) // KEPT)}
    verls = advantages(mask, "selected")
    table = Rows(
        session=[str(i % KEPT) for i in range(len(rows))],
        uid=[str(i // KEPT) for i in range(len(rows))],
        mask=mask,
        advantages=verls,
        returns=verls,
        old_log_probs=old,
    )
    ours, _ = compute_fields(table, groups, settings, step=1)
    ours.pop("returns")
    return {**ours, "old_log_probs": old, "ref_log_prob": reference}


def group_of(number: int, old: Tensor) -> dict:
    """Experts that find their answers somewhat likelier, or less likely, than the policy does."""
    rows = {}
    for session in range(KEPT):
        at = number * KEPT + session
        rows[str(session)] = {"source": SOURCES[at], "right": REWARDS[at] >= 2}
        if SOURCES[at] != POLICY:
            rows[str(session)]["log_own"] = old[at].sum().item() + (0.8, -0.5, 1.3)[at % 3]
    return {"zeroed": [], "shares": {POLICY: 1 / 3, "gpt": 1 / 3, "gemini": 1 / 3}, "rows": rows}


def verls_update(engine, rows: list, fields: dict, learn: LearnSettings) -> tuple[float, dict[str, Tensor]]:
    actor = ActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=-1, ppo_mini_batch_size=len(REWARDS), use_dynamic_bsz=True,
        use_kl_loss=True, kl_loss_coef=BETA, kl_loss_type="low_var_kl", entropy_coeff=ENTROPY, clip_ratio=CLIP,
    )  # fmt: skip
    loss = partial(ekipl_loss, actor, learn) if learn.needs_loss else partial(ppo_loss, config=actor)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        found = engine.forward_backward_batch(batch(rows, False, **fields), loss_function=loss)
        gradient = {
            plain(name): value.grad.full_tensor().clone()
            for name, value in engine.module.named_parameters()
            if value.grad is not None
        }
    return float(sum(found["loss"])), gradient


def plain_update(folder: Path, rows: list, fields: dict, learn: LearnSettings) -> tuple[float, dict[str, Tensor]]:
    """Eq. 3 of the paper per token, with w in front, in the words of the paper and with nothing of verl's."""
    model = load(folder)
    total, tokens = torch.zeros(()), sum(len(row.answer) for row in rows)
    for at, row in enumerate(rows):
        log_prob, entropy = answer_of(model, row)
        old, reference, advantage, weight = (
            fields[name][at, : len(row.answer)]
            for name in ("old_log_probs", "ref_log_prob", "advantages", "rollout_is_weights")
        )
        expert = SOURCES[at] != POLICY
        ratio = torch.exp(log_prob - old)
        surrogate = ratio * advantage
        if learn.clip_on_experts or not expert:
            surrogate = torch.minimum(surrogate, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
        objective = weight * surrogate
        if learn.kl_on_experts or not expert:
            objective = objective - BETA * (torch.exp(reference - log_prob) - (reference - log_prob) - 1)
        if learn.entropy_on_experts or not expert:
            objective = objective + ENTROPY * entropy
        if learn.has_sft and expert and REWARDS[at] >= 2:
            objective = objective + learn.sft.start * log_prob
        total = total - objective.sum() / tokens
    total.backward()
    gradient = {plain(name): value.grad for name, value in model.named_parameters() if value.grad is not None}
    return total.item(), gradient


def answer_of(model, row) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each token of the answer."""
    kinds = {"mm_token_type_ids": (row.ids == model.config.image_token_id).int()[None]} if row.pictures else {}
    logits = model(input_ids=row.ids[None], **row.pictures, **kinds).logits[0, :-1]
    table = logits[-len(row.answer) :].log_softmax(-1)
    return table.gather(-1, row.answer[:, None])[:, 0], -(table.exp() * table).sum(-1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--lora" in sys.argv)
