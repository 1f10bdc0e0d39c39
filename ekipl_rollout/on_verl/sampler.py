"""verl's replay buffer, plus what our worker left on the prompts' tags: metrics, statistics for the baseline, and which
groups are silent.

Set as `trainer.v1.sampler.custom_sampler`. `sampler_kwargs`:

    ekipl              the `ekipl:` block (interpolated)
    train_batch_size   data.train_batch_size (interpolated), for silent_groups=resample
    poll_interval      seconds between two looks at TransferQueue; verl's 2.0 is half of a short step
"""

from collections import Counter
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from ekipl_rollout.bounds.report import bounds_metrics
from ekipl_rollout.group_report import step_metrics
from ekipl_rollout.on_verl.advantage import remember_groups
from ekipl_rollout.on_verl.running import end_requests_after, remember_trainer
from ekipl_rollout.on_verl.shared_bounds import look_at_bounds, needs_bounds
from ekipl_rollout.settings import EkiplSettings

TAG = "ekipl"
"""Key of the group dictionary within a prompt's tag."""


def groups_in(partition_id: str, uids: Any) -> dict[str, dict]:
    """The group dictionaries on the prompts' tags, as far as there are any."""
    tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
    return {uid: tags[uid][TAG] for uid in uids if TAG in tags.get(uid, {})}


class EkiplReplayBuffer(ReplayBuffer):
    """verl's buffer of trainer_mode=sync; reads the prompt tags just before verl clears them."""

    def __init__(self, *args: Any, sampler_kwargs: Any, **kwargs: Any):
        ours = dict(sampler_kwargs or {})
        self._ekipl = EkiplSettings.from_config(ours.pop("ekipl", None), check=False)
        self._batch_size = int(ours.pop("train_batch_size", 0))
        kwargs["poll_interval"] = float(ours.pop("poll_interval", 2.0))
        self._step_metrics: dict[str, float] = {}
        remember_trainer(kwargs.get("refill_fn"))
        self._resampled: list[dict] = []
        if self._ekipl.advantage.silent_groups == "resample":  # verl leaves a custom sampler's filtering to the sampler
            kwargs.update(filter_groups_metric="reward", train_batch_size=self._batch_size, gen_batch_size=1)
        super().__init__(*args, sampler_kwargs=ours, **kwargs)

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter]:
        """Groups that are silent by our baseline, until enough of them were replaced; verl looks at equal rewards."""
        most = self._ekipl.advantage.resample_batches * self._batch_size
        if partition_id == "val" or self.filter_groups_metric is None or len(self._resampled) >= most:
            return set(), Counter()
        groups = groups_in(partition_id, self.finished_keys[partition_id])
        silent = {uid: group for uid, group in groups.items() if group["silent"]}
        return set(list(silent)[: most - len(self._resampled)]), Counter()

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, eviction_reasons: tuple):
        if eviction_reasons[1]:
            self._resampled += groups_in(partition_id, eviction_reasons[1]).values()
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict):
        if partition_id != "train":
            return super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)
        groups = groups_in(partition_id, selected_prompt_uids)
        remember_groups(groups, self._ekipl.advantage)
        self._step_metrics = step_metrics(groups.values(), [e.name for e in self._ekipl.experts])
        self._step_metrics["ekipl/groups/lost"] = float(len(selected_prompt_uids) - len(groups))
        batch = super()._materialize_batch(partition_id, selected_prompt_uids, in_order(partition_snapshot, groups))
        return without_silent(batch, groups) if self._ekipl.advantage.silent_groups == "drop" else batch

    def sample(self, global_steps: int, partition_id: str, batch_size: int):
        self._resampled = []
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id == "train":
            metrics = {
                **metrics,
                **self._step_metrics,
                **self._resample_metrics(),
                **self._bounds_metrics(global_steps),
            }
            end_requests_after(global_steps)
        return batch, metrics

    def _resample_metrics(self) -> dict[str, float]:
        """What the replaced groups cost; they are in no other number of the step."""
        if self.filter_groups_metric is None:
            return {}
        spent = sum(row.get("dollars", 0.0) for group in self._resampled for row in group["sources"].values())
        return {"ekipl/resampled/groups": float(len(self._resampled)), "ekipl/resampled/dollars": float(spent)}

    def _bounds_metrics(self, step: int) -> dict[str, float]:
        seen = look_at_bounds(self._ekipl, step) if needs_bounds(self._ekipl) else None
        return bounds_metrics(seen, [e.name for e in self._ekipl.experts]) if seen else {}


def in_order(rows: dict[str, dict], groups: dict[str, dict]) -> dict[str, dict]:
    """The rows (key: uid_session_output) group by group, by the groups' `order` and the sessions. What came first decides
    only between groups of the same order: rows that have neither an id nor an index.

    verl takes them as they came, and with several mini-batches a step who shares one would differ from run to run.
    """
    came = {uid: number for number, uid in enumerate(dict.fromkeys(key.split("_")[0] for key in rows))}

    def place(key: str) -> tuple[int, int, list[int]]:
        uid, *numbers = key.split("_")
        return groups.get(uid, {}).get("order", 0), came[uid], [int(number) for number in numbers]

    return {key: rows[key] for key in sorted(rows, key=place)}


def without_silent(batch: KVBatchMeta, groups: dict[str, dict]) -> KVBatchMeta:
    """The batch without the rows of silent groups; all of it when nothing else would be left."""
    stays = [not groups.get(key.split("_")[0], {}).get("silent", False) for key in batch.keys]
    if all(stays) or not any(stays):
        return batch
    tq.kv_clear(
        partition_id=batch.partition_id, keys=[k for k, stay in zip(batch.keys, stays, strict=True) if not stay]
    )
    kept = [(key, tag) for key, tag, stay in zip(batch.keys, batch.tags, stays, strict=True) if stay]
    return KVBatchMeta(partition_id=batch.partition_id, keys=[k for k, _ in kept], tags=[t for _, t in kept])
