"""The recipe's trainer on verl's Megatron engine, without a GPU: Ray, TransferQueue, vLLM, and experts over HTTP.

Only the layers of TransformerEngine and torch.cuda are stood in for (tests/megatron_cpu, docs/megatron.md).
"""

import json

import pytest

from tests.e2e.test_training import Run
from tests.megatron_cpu.processes import environment

pytestmark = pytest.mark.e2e

# ekipl_tiny.yaml is written for FSDP
MEGATRON = (
    "model_engine=megatron",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",  # one update a step: the first sees the reference itself
    "~actor_rollout_ref.actor.fsdp_config",
    "~actor_rollout_ref.ref.fsdp_config",
    "~actor_rollout_ref.actor.optim.override_optimizer_config.fused",
    "~actor_rollout_ref.actor.optim.min_lr_ratio",
    "actor_rollout_ref.actor.optim.lr_decay_style=constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "actor_rollout_ref.actor.strategy=megatron",
    "actor_rollout_ref.ref.strategy=megatron",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra]",
    "actor_rollout_ref.model.external_lib=[recipe.ekipl.megatron.register,tests.megatron_cpu.engine]",
    "actor_rollout_ref.model.use_remove_padding=true",
    "trainer.val_before_train=False",
    "trainer.test_freq=-1",
    "trainer.save_freq=2",
)


def test_training_on_megatron_learns_from_experts_and_goes_on_from_its_checkpoint(workshop, demo_experts, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    _, url = demo_experts
    assert Run(workshop, "megatron", "demo", url, *MEGATRON, "trainer.total_training_steps=2").finish()["steps"] == 2

    resumed = Run(workshop, "megatron", "demo", url, *MEGATRON, "trainer.total_training_steps=3")
    assert resumed.finish()["steps"] == 3
    assert "going on   from the checkpoint of step 2" in resumed.stdout.read_text()
    rows = [json.loads(line) for line in (resumed.root / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["actor/grad_norm"] > 0
        assert row["ekipl/expert1/accuracy"] > 0
        assert 0 < row["ekipl/expert_share"] <= 1
    first, second, third = (row["actor/kl_loss"] for row in rows)
    assert first == pytest.approx(0, abs=1e-4), "the policy still is its reference"
    assert min(second, third) > 1e-4, "it has moved away, and going on does not bring it back"
