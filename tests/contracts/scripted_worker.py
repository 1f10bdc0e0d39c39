"""What stands around a worker in one process: a policy and experts that say what they are told, a queue that only listens.

Tokenizer, processor, agent loop, reward function and everything that makes a row are the real ones.
"""

import asyncio
import copy
import io

import numpy as np
import torch

from ekipl_rollout.answer import Answer, AnswerStatus

RIGHT, WRONG, BROKEN = (
    "<think> cube red yes : 1 </think><answer> 1 </answer>",
    "<think> cube red no : 0 </think><answer> 0 </answer>",
    "cube red",
)

TIMES = ("generate_sequences", "tool_calls", "compute_score")
"""Of verl's metrics of a session."""


class ScriptedPolicy:
    """Stands for verl's LLM server client: gives out the scripted texts, one a session; a list is what a session says turn
    after turn."""

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts = tokenizer, list(texts)
        self.sessions = {}

    async def generate(self, request_id, **_):
        from verl.workers.rollout.replica import TokenOutput

        if request_id not in self.sessions:
            text = self.texts.pop(0)
            self.sessions[request_id] = list(text) if isinstance(text, list) else [text]
        text = self.sessions[request_id].pop(0)
        if isinstance(text, Exception):
            raise text
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id]
        return TokenOutput(
            token_ids=ids,
            log_probs=None,
            stop_reason="completed",
            extra_fields={"min_global_steps": 3, "max_global_steps": 3},
        )


class RewardHandle:
    """Stands for the Ray handle of verl's reward worker; judges with verl's own naive manager."""

    def __init__(self, config):
        from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

        import ekipl_reward

        self.manager = NaiveRewardManager(config, None, ekipl_reward.compute_score)
        self.compute_score, self.compute_score_batch = self._Method(self._one), self._Method(self._batch)
        self.judged = self.requests = 0

    class _Method:
        def __init__(self, call):
            self.call = call

        async def remote(self, data):
            return await self.call(copy.deepcopy(data))  # as over Ray: verl's manager writes into the row that it gets

    async def _one(self, data):
        self.judged += 1
        self.requests += 1
        return await self.manager.run_single(data)

    async def _batch(self, data):
        self.judged += len(data)
        self.requests += 1
        return [await self.manager.run_single(data[i : i + 1]) for i in range(len(data))]


class Queue:
    """A TransferQueue that only listens."""

    def __init__(self):
        self.rows, self.tags, self.prompts = {}, {}, {}

    async def async_kv_put(self, key, partition_id, tag):
        self.prompts.setdefault(key, {}).update(tag)

    async def async_kv_batch_put(self, keys, fields, tags, partition_id):
        for i, (key, tag) in enumerate(zip(keys, tags, strict=True)):
            self.rows[key], self.tags[key] = fields[i], tag


def prompt():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (84, 84), "red").save(buffer, "PNG")
    picture = Image.open(io.BytesIO(buffer.getvalue()))
    picture.load()  # as after Ray's pickling; an unread one is decoded by several threads at once
    content = [
        {"type": "image", "bytes": buffer.getvalue(), "image": picture},
        {"type": "text", "text": "Count all red objects. How many are there?"},
    ]
    return {
        "uid": "u1",
        "raw_prompt": [{"role": "user", "content": content}],
        "agent_name": "single_turn_agent",
        "data_source": "clevr_math",
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": {"index": 0},
        "index": 0,
        "global_steps": 3,
    }


class ScriptedExpert:
    def __init__(self, name, *texts, error=None):
        self.name, self.texts, self.error = name, texts, error

    async def answer(self, question, num_answers):
        self.question = question
        if self.error:
            raise self.error
        return [Answer(self.name, i, t, AnswerStatus.FINISHED) for i, t in enumerate(self.texts[:num_answers])]

    async def close(self): ...


def comparable(value):
    """What can be compared with ==; without times, and with pictures by their type and size."""
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), tuple(value.shape), value.tolist())
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, (list, tuple)):
        return [comparable(v) for v in value]
    if isinstance(value, np.ndarray):
        return comparable(value.tolist())
    return repr(value) if type(value).__module__.startswith("PIL") else value


def texts_of(queue):
    return sorted(
        queue.worker.tokenizer.decode(row["responses"], skip_special_tokens=True) for row in queue.rows.values()
    )


async def answer_one_prompt(cls, config, queue, texts, experts, validate=False, made=None, before=None):
    """A worker of `cls` answers `made`, or prompt(); `before` is done with the worker first. What is written is in `queue`."""
    handle = RewardHandle(config)
    worker = cls(config, None, None, [handle])
    handle.manager.tokenizer = worker.tokenizer
    handle.manager.loop = asyncio.get_running_loop()
    worker.llm_client = ScriptedPolicy(worker.tokenizer, texts)
    if hasattr(worker, "_asking"):
        worker._asking.experts = list(experts)
    if before:
        await before(worker)
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": False}
    trajectory = {"step": 3, "sample_index": 0, "rollout_n": 0, "validate": validate}
    await worker._run_prompt(made or prompt(), sampling, trajectory=trajectory)
    queue.worker, queue.judged, queue.requests = worker, handle.judged, handle.requests
    return queue
