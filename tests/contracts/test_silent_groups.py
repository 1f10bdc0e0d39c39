"""Groups that teach nothing: left out of the batch, or replaced, by verl's own replay buffer over a queue in memory."""

from collections.abc import Sequence

import pytest
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import replay_buffer as verls

from ekipl_rollout.on_verl import sampler
from ekipl_rollout.on_verl.sampler import TAG, EkiplReplayBuffer, without_silent

pytestmark = pytest.mark.contract

ROWS = 2


class Queue:
    """TransferQueue's tags, in a dictionary."""

    def __init__(self):
        self.tags: dict[str, dict[str, dict]] = {"train": {}}

    def add(self, uid: str, silent: bool, order: int = 0, sessions: Sequence[int] = range(ROWS)) -> None:
        summary = {"silent": silent, "zeroed": [], "sources": {"gpt": {"dollars": 0.5}}, "rows": {}, "order": order}
        self.tags["train"][uid] = {"is_prompt": True, "status": "finished", "global_steps": 1, TAG: summary}
        for session in sessions:
            self.tags["train"][f"{uid}_{session}_0"] = {"seq_len": 1}

    def kv_list(self, partition_id=None):
        return {name: dict(tags) for name, tags in self.tags.items()}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            self.tags[partition_id].pop(key, None)

    @property
    def uids(self) -> set[str]:
        return {key for key in self.tags["train"] if "_" not in key}


@pytest.fixture
def queue(monkeypatch):
    queue = Queue()
    monkeypatch.setattr(sampler, "tq", queue)
    monkeypatch.setattr(verls, "tq", queue)
    monkeypatch.setattr(sampler, "remember_trainer", lambda refill: None)
    monkeypatch.setattr(sampler, "step_metrics", lambda groups, experts: {})
    monkeypatch.setattr(sampler, "end_requests_after", lambda step: None, raising=False)
    return queue


def buffer(queue, new_groups, batch_size=2, **advantage):
    """A buffer whose refills add the next of `new_groups`: whether each is silent."""
    coming = iter(new_groups)

    def refill(count: int) -> None:
        for _ in range(count):
            silent = next(coming)
            queue.add(f"new{len(buffer.added)}", silent)
            buffer.added.append(silent)

    buffer.added = []
    return EkiplReplayBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={"ekipl": {"advantage": advantage}, "train_batch_size": batch_size, "poll_interval": 0.001},
        refill_fn=refill,
    )


def taken(batch: KVBatchMeta) -> set[str]:
    return {key.split("_")[0] for key in batch.keys}


def test_silent_groups_are_replaced_by_other_rows(queue):
    queue.add("silent", True)
    queue.add("loud", False)
    batch, metrics = buffer(queue, [False, False], silent_groups="resample").sample(1, "train", 2)
    assert taken(batch) < {"loud", "new0", "new1"}  # verl takes equally old groups in the order of a set
    assert len(taken(batch)) == 2 and len(batch.keys) == 2 * ROWS
    assert metrics["ekipl/resampled/groups"] == 1.0
    assert metrics["ekipl/resampled/dollars"] == 0.5


def test_replacing_ends_after_so_many_batches_however_silent_the_rows_are(queue):
    queue.add("a", True)
    queue.add("b", True)
    never_ending = iter(lambda: True, False)
    batch, metrics = buffer(queue, never_ending, silent_groups="resample", resample_batches=2).sample(1, "train", 2)
    assert len(taken(batch)) == 2
    assert metrics["ekipl/resampled/groups"] == 4.0


def test_validation_is_left_alone(queue):
    queue.tags["val"] = {}
    queue.add("silent", True)
    queue.tags = {"train": {}, "val": queue.tags["train"]}
    batch, _ = buffer(queue, [], silent_groups="resample").sample(1, "val", 1)
    assert taken(batch) == {"silent"}


def test_silent_groups_leave_the_batch_when_they_are_to_be_dropped(queue):
    queue.add("silent", True)
    queue.add("loud", False)
    batch, _ = buffer(queue, [], silent_groups="drop").sample(1, "train", 2)
    assert taken(batch) == {"loud"}
    assert len(batch.keys) == len(batch.tags) == ROWS
    assert not [key for key in queue.tags["train"] if key.startswith("silent")]


def test_kept_silent_groups_stay(queue):
    queue.add("silent", True)
    assert taken(buffer(queue, []).sample(1, "train", 1)[0]) == {"silent"}


def test_a_batch_of_silent_groups_only_is_not_emptied(queue):
    batch = KVBatchMeta(partition_id="train", keys=["a_0_0", "a_1_0"], tags=[{}, {}])
    assert without_silent(batch, {"a": {"silent": True}}) is batch


def test_rows_are_in_the_same_order_whatever_came_first(queue):
    """Mini-batches are taken from this order, so that two runs with the same answers make the same updates."""
    queue.add("late", False, order=7, sessions=[10, 2])
    queue.add("early", False, order=3, sessions=[1, 0])
    queue.add("unseeded", False, order=7, sessions=[0, 1])
    batch, _ = buffer(queue, [], batch_size=3).sample(1, "train", 3)
    assert batch.keys == ["early_0_0", "early_1_0", "late_2_0", "late_10_0", "unseeded_0_0", "unseeded_1_0"]


def test_steps_of_the_benchmark_are_verls_own_in_the_stock_arm_and_update_on_every_row_in_ours(monkeypatch):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    from ekipl_rollout.on_verl.trainer import TrainsOnGroups, make_ours
    from recipe.ekipl.benchmark import on_verl

    class Theirs(PPOTrainer):
        def __init__(self): ...

        def _compute_advantage(self, batch, metrics):
            return "verl's"

        _update_actor = on_sample_end = on_step_end = _compute_advantage

    for method in ("_compute_advantage", "_update_actor"):
        monkeypatch.setattr(TrainsOnGroups, method, lambda self, batch, metrics: "ours")
    trainer = Theirs()
    make_ours(trainer)
    monkeypatch.setattr(sampler, "remember_trainer", lambda refill: None)
    monkeypatch.setattr(on_verl, "running_trainer", lambda: trainer)
    buffer = on_verl.BenchmarkBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={"ekipl": {}, "schedule": ["stock", "fast"]},
    )
    assert trainer.skips_silent is False
    monkeypatch.setattr(on_verl, "end_requests_after", lambda step: None)
    for way in (sampler.ReplayBuffer, on_verl.EkiplReplayBuffer):
        monkeypatch.setattr(way, "sample", lambda self, **kwargs: None)
    for step, whose in ((1, "verl's"), (2, "ours")):
        buffer.sample(step, "train", 1)
        assert (trainer._compute_advantage(None, {}), trainer._update_actor(None, {})) == (whose, whose)
