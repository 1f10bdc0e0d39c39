"""One training whose steps take turns between verl's own way and ours, and what is counted on the way.

The stock arm runs verl's own `_run_prompt` and its own replay buffer's `sample`; trainer, actor, rollout server and
TransferQueue are the same processes for all arms. Pictures are remembered for one step at most, as in a run whose rows
are all different. The counters are the only thing that is wrapped: the processor, and TransferQueue's `async_kv_batch_put` in
the worker's process, for all arms alike.
"""

import contextlib
import json
import pickle
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue
from tensordict import TensorDict
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from ekipl_rollout.on_verl.asking import Asking
from ekipl_rollout.on_verl.pictures import ProcessorWithMemory
from ekipl_rollout.on_verl.running import end_requests_after, running_trainer
from ekipl_rollout.on_verl.sampler import TAG, EkiplReplayBuffer
from ekipl_rollout.on_verl.trainer import TrainsOnGroups
from ekipl_rollout.on_verl.worker import EkiplManager, EkiplWorker, _PlainWorker
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.benchmark.arms import ARMS, STOCK, Arm


class CountsCalls:
    """A processor that counts the calls with pictures."""

    def __init__(self, processor: Any):
        self._processor, self.calls = processor, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += bool(kwargs.get("images"))
        return self._processor(*args, **kwargs)


def size_of(value: Any) -> int:
    """Bytes of a value on its way: tensors by their data, everything else as it is pickled."""
    if isinstance(value, torch.Tensor):
        tensors = value.unbind() if value.is_nested else [value]
        return sum(t.numel() * t.element_size() for t in tensors)
    if isinstance(value, (dict, TensorDict)):
        return sum(size_of(entry) for _, entry in value.items())
    if isinstance(value, (list, tuple)):
        return sum(size_of(entry) for entry in value)
    return len(pickle.dumps(value))


class BenchmarkWorker(EkiplWorker):
    """Takes turns by step."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._schedule = list(self.config.benchmark.schedule)
        self._by_arm = {arm.name: Asking(of_arm(self.ekipl, arm)) for arm in ARMS}
        self._bare = self.processor and CountsCalls(self.processor._processor)
        self._counts: dict[str, Any] = {}
        self._arm = STOCK
        put = transfer_queue.async_kv_batch_put

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self._counts["rows"] += len(kwargs["keys"])
            self._counts["bytes"] += size_of(kwargs["fields"])
            return await put(*args, **kwargs)

        transfer_queue.async_kv_batch_put = counted

    async def generate_sequences(self, batch: TensorDict) -> None:
        step = int(batch["global_steps"])
        self._arm = self._schedule[step - 1]
        self._asking = self._by_arm[self._arm]
        self.processor: Any = self._bare and (self._bare if self._arm == STOCK else ProcessorWithMemory(self._bare))
        self._counts = {"step": step, "arm": self._arm, "rows": 0, "bytes": 0, "groups": defaultdict(dict)}
        self._counts["calls_before"] = self._bare.calls if self._bare else 0
        await super().generate_sequences(batch)

    async def counts(self) -> dict[str, Any]:
        """Of the step that was generated last, whose groups are all done."""
        counts = dict(self._counts)
        if counts:
            calls = (self._bare.calls if self._bare else 0) - counts.pop("calls_before")
            counts |= {"preprocessings": calls, "groups": list(counts["groups"].values())}
        return counts

    async def close(self) -> None:
        for asking in self._by_arm.values():
            await asking.close()

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        run = _PlainWorker._run_prompt if self._arm == STOCK else EkiplWorker._run_prompt
        with self._timed(prompt["uid"], "group_s"):
            await run(self, prompt, sampling_params, trajectory, trace)

    async def _run_group(self, uid: str, *args: Any, **kwargs: Any) -> dict:
        tag = await super()._run_group(uid, *args, **kwargs)
        sources = tag[TAG]["sources"]
        expert_s = max((sources.get(name, {}).get("seconds", 0.0) for name in tag[TAG]["wanted"]), default=0.0)
        self._counts["groups"][uid] |= {"exposed_s": tag[TAG]["exposed_wait_s"], "expert_s": expert_s}
        return tag

    async def _ask_policy(self, n: int, prompt: dict, *args: Any, **kwargs: Any) -> list[BaseException]:
        with self._timed(prompt["uid"], "policy_s"):
            return await super()._ask_policy(n, prompt, *args, **kwargs)

    async def _judge_experts(self, answers: list, example: tuple, *args: Any, **kwargs: Any) -> list:
        with self._timed(example[1]["uid"], "judge_s"):
            return await super()._judge_experts(answers, example, *args, **kwargs)

    async def _write(self, rows: list) -> None:
        with self._timed(rows[0][1]["uid"] if rows else "", "keep_s"):
            await super()._write(rows)

    @contextlib.contextmanager
    def _timed(self, uid: str, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._counts["groups"][uid][name] = time.monotonic() - started


def of_arm(settings: EkiplSettings, arm: Arm) -> EkiplSettings:
    """The settings of one arm: its experts, and how they are asked."""
    experts = tuple(expert for expert in settings.experts if expert.name in arm.experts)
    return replace(settings, experts=experts, record=replace(settings.record, mode=arm.record))


class BenchmarkManager(EkiplManager):
    """Writes what the workers counted to `benchmark.counts`, a line a worker and step."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(BenchmarkWorker)

    def generate_sequences(self, prompts: TensorDict) -> None:
        self._write_counts()
        super().generate_sequences(prompts)

    def close(self) -> None:
        if not self._closed:
            self._write_counts()
        super().close()

    def _write_counts(self) -> None:
        found = ray.get([worker.counts.remote() for worker in self.agent_loop_workers])
        with open(Path(self.config.benchmark.counts), "a") as file:
            file.writelines(json.dumps(counts) + "\n" for counts in found if counts)


class TakesTurns(PPOTrainer):
    """Mixed into the trainer in front of ours: in steps of the stock arm verl's own methods, as if ours were not there."""

    stock = False

    def _compute_advantage(self, *args: Any, **kwargs: Any) -> Any:
        return self._whose()._compute_advantage(*args, **kwargs)

    def _update_actor(self, *args: Any, **kwargs: Any) -> Any:
        return self._whose()._update_actor(*args, **kwargs)

    def _whose(self) -> Any:
        return super(TrainsOnGroups if self.stock else TakesTurns, self)


class BenchmarkBuffer(EkiplReplayBuffer):
    """In steps of the stock arm, verl's own methods and nothing else."""

    def __init__(self, *args: Any, sampler_kwargs: Any, **kwargs: Any):
        ours = dict(sampler_kwargs)
        self._schedule = list(ours.pop("schedule"))
        super().__init__(*args, sampler_kwargs=ours, **kwargs)
        self._trainer = running_trainer()
        ours_and_theirs = type(self._trainer)
        self._trainer.__class__ = type(f"Turns{ours_and_theirs.__name__}", (TakesTurns, ours_and_theirs), {})
        self._trainer.skips_silent = False  # every arm is to do the same work, whatever its answers are worth

    def sample(self, global_steps: int, partition_id: str, batch_size: int):
        self._is_stock = self._trainer.stock = self._schedule[global_steps - 1] == STOCK
        way = ReplayBuffer if self._is_stock else EkiplReplayBuffer
        last = global_steps == len(self._schedule)
        found = way.sample(self, global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if self._is_stock and last:
            end_requests_after(global_steps)
        return found

    def _materialize_batch(self, *args: Any, **kwargs: Any):
        way = ReplayBuffer if self._is_stock else EkiplReplayBuffer
        return way._materialize_batch(self, *args, **kwargs)
