"""One step from answers to advantages, verl's own way and ours without experts: worker, replay buffer, trainer, over a queue in
memory. The rows that the update gets must be equal, token by token."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager

from tests.contracts.scripted_worker import BROKEN, RIGHT, WRONG, prompt

pytestmark = pytest.mark.contract

PAPER = {"ekipl.advantage.baseline": "selected", "ekipl.advantage.std": "selected"}
"""The plug-in's preset; the advantage is then verl's own GRPO."""

GROUPS = {
    "u1": [RIGHT, WRONG, BROKEN, RIGHT + " and more"],
    "u2": [BROKEN + " a", BROKEN, BROKEN + " and more", BROKEN],  # all worth nothing
    "u3": [BROKEN, BROKEN + " a", RIGHT, BROKEN],
}
LEARNED = ("prompts", "responses", "input_ids", "response_mask", "position_ids", "rm_scores", "advantages", "returns")


class Memory:
    """TransferQueue in a dictionary; values are packed as its storage manager packs them."""

    def __init__(self, queues):
        self.rows, self.tags = {}, {}
        for queue in queues:
            self.rows |= {key: dict(row.items()) for key, row in queue.rows.items()}
            self.tags |= queue.tags
            self.tags |= {uid: {"is_prompt": True, "global_steps": 3, **tag} for uid, tag in queue.prompts.items()}

    def kv_list(self, partition_id=None):
        return {"train": dict(self.tags)}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.tags.pop(key, None)

    def kv_batch_get(self, keys, partition_id, select_fields):
        known = [name for name in select_fields if all(name in self.rows[key] for key in keys)]
        pack = AsyncSimpleStorageManager._pack_field_values
        return TensorDict({name: pack([self.rows[key][name] for key in keys]) for name in known}, batch_size=len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        for name, values in fields.items():
            for key, value in zip(keys, values.unbind(), strict=True):
                self.rows[key][name] = value
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[self.tags[key] for key in keys])


@pytest.fixture
def step(run, worker_config, monkeypatch):
    """step(worker class, settings) -> (trainer, metrics, rows after the advantage, by group)."""
    from verl.trainer.ppo.v1 import replay_buffer, trainer_base

    from ekipl_rollout.on_verl import running, sampler, weighing
    from ekipl_rollout.on_verl.worker import EkiplWorker

    monkeypatch.setattr(running, "_trainer", None)

    def start(cls, settings):
        queues = []
        for number, (uid, texts) in enumerate(GROUPS.items()):
            made = {**prompt(), "uid": uid, "index": number, "extra_info": {"index": number}}
            queues.append(run(cls, texts, settings=settings, made=made))
        memory = Memory(queues)
        for row in memory.rows.values():
            row["old_log_probs"] = torch.full((len(row["responses"]),), -1.0)
        for module in (replay_buffer, trainer_base, sampler, weighing):
            monkeypatch.setattr(module, "tq", memory)
        trainer = object.__new__(trainer_base.get_trainer_cls("sync"))
        trainer.config, trainer.global_steps, trainer.total_training_steps = copy.deepcopy(worker_config), 3, 9
        OmegaConf.update(trainer.config, "algorithm.adv_estimator", "grpo")
        ours = cls is EkiplWorker
        block = OmegaConf.to_container(queues[0].worker.config.ekipl, resolve=True)
        buffer = (sampler.EkiplReplayBuffer if ours else replay_buffer.ReplayBuffer)(
            trainer_mode="sync",
            trainer_config={},
            max_off_policy_threshold=None,
            max_off_policy_strategy="drop",
            sampler_kwargs={"ekipl": block} if ours else {},
            refill_fn=trainer._add_prompts_to_generate,
        )
        if ours:
            trainer._ekipl = queues[0].worker.ekipl
        batch, metrics = buffer.sample(3, "train", len(GROUPS))
        batch = trainer._compute_advantage(batch, metrics)
        rows = [(key.split("_")[0], {n: memory.rows[key][n].tolist() for n in LEARNED}) for key in batch.keys]
        return trainer, metrics, sorted(rows, key=repr)

    return start


def test_without_experts_the_rows_that_are_learned_from_are_those_of_verls_own_step(step, classes):
    from ekipl_rollout.on_verl.trainer import TrainsOnGroups

    theirs, ours = classes
    trainer, _, stock = step(theirs, PAPER)
    assert not isinstance(trainer, TrainsOnGroups)
    trainer, metrics, mine = step(ours, PAPER)
    assert isinstance(trainer, TrainsOnGroups)
    assert metrics["ekipl/groups/count"] == len(GROUPS)
    assert mine == stock
    advantages = {uid: [row["advantages"][0] for of, row in stock if of == uid] for uid in GROUPS}
    assert max(advantages["u1"]) > 0.5 and min(advantages["u1"]) < -0.5
    assert advantages["u2"] == [0.0] * 4
    assert sum(value > 1 for value in advantages["u3"]) == 1
