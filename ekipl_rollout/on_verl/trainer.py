"""verl's trainer of any mode, and what it lacks for mixed groups: rows whose advantage is to be zero, and steps that would
update on nothing.

verl looks a trainer up by the mode's name and tests the name elsewhere (`trainer_mode == "sync"` chooses the replay
buffer), so a trainer under a new name would silently get the wrong one; and somebody's own `main_ppo` makes its trainer
before anything of ours is called. `make_ours` therefore gives the trainer that verl has made another class. It is called
by our sampler, which verl makes within the trainer's `__init__`, long before the trainer computes anything.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.workers.utils.padding import response_to_nested

from ekipl_rollout.group_report import silence_warning
from ekipl_rollout.on_verl.advantage import remembered_groups
from ekipl_rollout.settings import EkiplSettings

logger = logging.getLogger(__name__)
WARN_EVERY = 20  # steps


class TrainsOnGroups:
    """Mixed into a trainer of verl."""

    config: Any
    global_steps: int

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        groups = remembered_groups()
        self._has_signal = not groups or not all(group["silent"] for group in groups.values())
        metrics["ekipl/update/skipped"] = float(not self._has_signal)
        self._warn(groups)
        return zero_advantages(batch, groups)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Adam turns the gradient of a KL term alone, however small, into full-size steps: no signal, no step."""
        return super()._update_actor(batch, metrics) if self._has_signal else batch

    def _warn(self, groups: Mapping[str, Mapping[str, Any]]) -> None:
        text = silence_warning(groups.values(), EkiplSettings.from_config(self.config.ekipl, check=False))
        if text and self.global_steps >= getattr(self, "_next_warning", 0):
            logger.warning("step %d: %s", self.global_steps, text)
            self._next_warning = self.global_steps + WARN_EVERY


def make_ours(trainer: PPOTrainer) -> None:
    """`trainer`, whatever its mode, also trains on groups from here on."""
    theirs = type(trainer)
    if not issubclass(theirs, TrainsOnGroups):
        trainer.__class__ = type(f"Ekipl{theirs.__name__}", (TrainsOnGroups, theirs), {})


def zero_advantages(batch: KVBatchMeta, groups: Mapping[str, Mapping[str, Any]]) -> KVBatchMeta:
    """Advantages and returns of `zeroed` sessions become 0 in TransferQueue. Returns verl's own meta, whose list of
    fields the next stage reads."""
    zeroed = [session in group["zeroed"] for session, group in sessions_of(batch, groups)]
    if not any(zeroed):
        return batch
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages", "returns", "response_mask"]
    )
    mask = data["response_mask"]
    stays = ~torch.tensor(zeroed).unsqueeze(-1)
    fields = {
        name: response_to_nested(torch.where(stays, data[name].to_padded_tensor(0.0), 0.0), mask)
        for name in ("advantages", "returns")
    }
    return tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch.keys))
    )


def sessions_of(
    batch: KVBatchMeta, groups: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[int | None, Mapping[str, Any]]]:
    """(session, group) of each row, in the batch's order; verl's padding rows have session None and an empty group."""
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        uid, session, _ = key.rsplit("_", 2)
        padding = tag.get("is_padding", False) or uid not in groups
        yield (None, {"zeroed": ()}) if padding else (int(session), groups[uid])
