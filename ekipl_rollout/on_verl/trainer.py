"""verl's trainer, and what it lacks for mixed groups: weights, terms on expert rows, and no step on nothing.

verl looks a trainer up by the mode's name and tests the name elsewhere (`trainer_mode == "sync"` chooses the replay
buffer), so a trainer under a new name would silently get the wrong one; and somebody's own `main_ppo` makes its trainer
before anything of ours is called. `make_ours` therefore gives the trainer that verl has made another class. It is called
by our sampler, which verl makes within the trainer's `__init__`, long before the trainer computes anything.
"""

import logging
import time
from functools import partial
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.distillation.losses import is_distillation_enabled
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.config import omega_conf_to_dataclass

from ekipl_rollout.group_report import silence_warning
from ekipl_rollout.on_verl.advantage import remembered_groups
from ekipl_rollout.on_verl.loss import ekipl_loss
from ekipl_rollout.on_verl.mini_batches import teaching_rows
from ekipl_rollout.on_verl.weighing import Groups, finish_batch
from ekipl_rollout.settings import EkiplSettings

logger = logging.getLogger(__name__)
WARN_EVERY = 20  # steps


class TrainsOnGroups(PPOTrainer):
    """Mixed into a trainer of verl. Derived from their common base, or Python would not let an object change to it."""

    config: Any
    global_steps: int
    actor_rollout_wg: Any

    skips_silent = True
    """Mini-batches that teach nothing make no update. False: they do, for a comparison of the time that it takes."""

    def init(self) -> None:
        super().init()
        self._ekipl = EkiplSettings.from_config(self.config.ekipl, check=False)
        if self._ekipl.learn.needs_loss:
            actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            self.actor_rollout_wg.set_loss_fn(partial(ekipl_loss, actor, self._ekipl.learn))

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        groups = remembered_groups()
        started = time.perf_counter()
        batch, self._teaches, ours = finish_batch(batch, groups, self._ekipl, self.global_steps)
        ours["ekipl/weights/seconds"] = time.perf_counter() - started
        metrics.update(ours)
        self._warn(groups)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Adam makes a full-size step of the gradient of a KL term alone, however small: no signal, no step."""
        rows = self._teaching_rows()
        metrics["ekipl/update/skipped"] = 1.0 - len(rows) / len(batch)
        if rows:
            super()._update_actor(batch.select_keys([batch.keys[row] for row in rows]), metrics)
        return batch

    def _teaching_rows(self) -> list[int]:
        """Places in the batch. All or none where verl shuffles, because mini-batches are not known then."""
        everything, actor = list(range(len(self._teaches))), self.config.actor_rollout_ref.actor
        if not self.skips_silent or is_distillation_enabled(self.config.get("distillation")):
            return everything
        if actor.shuffle:
            return everything if any(self._teaches) else []
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1  # known since verl balanced the batch
        mini_batch = actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        return teaching_rows(self._teaches, mini_batch, ranks)

    def _warn(self, groups: Groups) -> None:
        text = silence_warning(groups.values(), self._ekipl)
        if text and self.global_steps >= getattr(self, "_next_warning", 0):
            logger.warning("step %d: %s", self.global_steps, text)
            self._next_warning = self.global_steps + WARN_EVERY


def make_ours(trainer: PPOTrainer) -> None:
    """`trainer` also trains on groups from here on."""
    theirs = type(trainer)
    if not issubclass(theirs, TrainsOnGroups):
        trainer.__class__ = type(f"Ekipl{theirs.__name__}", (TrainsOnGroups, theirs), {})
