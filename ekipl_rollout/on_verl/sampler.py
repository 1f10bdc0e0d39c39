"""verl's replay buffer, plus what our worker left on the prompts' tags: metrics, and statistics for the baseline.

Set as `trainer.v1.sampler.custom_sampler`. `sampler_kwargs`:

    ekipl            the `ekipl:` block (interpolated)
    poll_interval    seconds between two looks at TransferQueue; verl's 2.0 is half of a short step
"""

from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from ekipl_rollout.bounds.report import bounds_metrics
from ekipl_rollout.group_report import step_metrics
from ekipl_rollout.on_verl.advantage import remember_groups
from ekipl_rollout.on_verl.shared_bounds import look_at_bounds, needs_bounds
from ekipl_rollout.settings import EkiplSettings

TAG = "ekipl"
"""Key of the group dictionary within a prompt's tag."""


class _ReadsGroups:
    """Mixed into verl's buffers; reads the prompt tags just before verl clears them."""

    def __init__(self, *args: Any, sampler_kwargs: Any, **kwargs: Any):
        ours = dict(sampler_kwargs or {})
        self._ekipl = EkiplSettings.from_config(ours.pop("ekipl", None), check=False)
        kwargs["poll_interval"] = float(ours.pop("poll_interval", 2.0))
        self._step_metrics: dict[str, float] = {}
        super().__init__(*args, sampler_kwargs=ours, **kwargs)

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict):
        if partition_id == "train":
            tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
            groups = {uid: tags[uid][TAG] for uid in selected_prompt_uids if TAG in tags.get(uid, {})}
            remember_groups(groups, self._ekipl.advantage)
            self._step_metrics = step_metrics(groups.values(), [e.name for e in self._ekipl.experts])
        return super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)

    def sample(self, global_steps: int, partition_id: str, batch_size: int):
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id == "train":
            metrics = {**metrics, **self._step_metrics, **self._bounds_metrics(global_steps)}
        return batch, metrics

    def _bounds_metrics(self, step: int) -> dict[str, float]:
        seen = look_at_bounds(self._ekipl, step) if needs_bounds(self._ekipl) else None
        return bounds_metrics(seen, [e.name for e in self._ekipl.experts]) if seen else {}


class EkiplReplayBuffer(_ReadsGroups, ReplayBuffer):
    """For trainer_mode=sync."""


class EkiplReplayBufferAsync(_ReadsGroups, ReplayBufferAsync):
    """For trainer_mode=colocate_async and separate_async."""
