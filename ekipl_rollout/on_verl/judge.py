"""Judge: verl's reward workers, asked for several answers of a group at once.

verl sends one request an answer, and each carries the whole row. Here the first answer of a group goes out at once, and
those that come in while it is being judged go together in the next request: judging still overlaps generation, and a
group of 24 costs a handful of requests.
"""

import asyncio
import logging
import random
from typing import Any

import numpy as np
import torch
from ray.exceptions import RayActorError
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.protocol import DataProto

logger = logging.getLogger(__name__)

FAILED = {
    "reward_score": 0.0,
    "reward_extra_info": {"acc": 0.0, "format": 0.0, "accuracy": 0.0, "reason": "reward_error"},
}


class GroupJudge:
    """Judges the answers of one group. One object a group."""

    def __init__(self, reward_workers: list[Any]):
        self._workers = reward_workers
        self._waiting: list[tuple[AgentLoopOutput, dict, asyncio.Future]] = []
        self._running: asyncio.Task | None = None

    async def score(self, output: AgentLoopOutput, row: dict) -> None:
        """Sets `reward_score` and `extra_fields["reward_extra_info"]`, unless the agent loop has set them already."""
        if output.reward_score is not None:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((output, row, done))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        result = await done
        output.reward_score = result["reward_score"]
        output.extra_fields["reward_extra_info"] = result["reward_extra_info"]

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                results = await self._judge([(output, row) for output, row, _ in batch])
            except RayActorError as error:
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, _, done), result in zip(batch, results, strict=True):
                if not done.done():
                    done.set_result(result)

    async def _judge(self, answers: list[tuple[AgentLoopOutput, dict]]) -> list[dict]:
        """A reward function that raises costs its own answer the reward, and nobody else anything. Raises RayActorError when
        a worker is gone: a run must not go on with rewards of 0."""
        worker = random.choice(self._workers)
        try:
            return await worker.compute_score_batch.remote(reward_request(answers))
        except RayActorError:
            raise
        except Exception as error:
            if len(answers) > 1:
                return [(await self._judge([answer]))[0] for answer in answers]
            logger.error("the reward function failed on an answer to %s: %s", answers[0][1].get("uid"), error)
            return [FAILED]


def reward_request(answers: list[tuple[AgentLoopOutput, dict]]) -> DataProto:
    """What verl's AgentLoopWorker._compute_score sends for one answer, for several; without position ids and pictures,
    which no reward manager of verl looks at. Prompts of one group are equal, responses are padded on the right."""
    outputs = [output for output, _ in answers]
    prompts = _padded([output.prompt_ids for output in outputs], left=True)
    responses = _padded([output.response_ids for output in outputs], left=False)
    masks = [_padded([[1] * len(ids) for ids in column], left) for column, left in _columns(outputs)]
    tensors = {
        "prompts": prompts,
        "responses": responses,
        "input_ids": torch.cat([prompts, responses], dim=1),
        "attention_mask": torch.cat(masks, dim=1),
    }
    others = {key: _objects([row[key] for _, row in answers]) for key in answers[0][1]}
    others["__num_turns__"] = np.array([output.num_turns for output in outputs])
    others["tool_extra_fields"] = _objects([output.extra_fields for output in outputs])
    others["prompt_len"] = np.array([len(output.prompt_ids) for output in outputs])
    others["response_len"] = np.array([len(output.response_ids) for output in outputs])
    return DataProto(batch=TensorDict(tensors, batch_size=len(answers)), non_tensor_batch=others)


def _columns(outputs: list[AgentLoopOutput]) -> list[tuple[list[list[int]], bool]]:
    return [([o.prompt_ids for o in outputs], True), ([o.response_ids for o in outputs], False)]


def _padded(rows: list[list[int]], left: bool) -> torch.Tensor:
    width = max(len(row) for row in rows)
    blanks = [[0] * (width - len(row)) for row in rows]
    filled = [blank + list(row) if left else list(row) + blank for blank, row in zip(blanks, rows, strict=True)]
    return torch.tensor(filled, dtype=torch.int64)


def _objects(values: list[Any]) -> np.ndarray:
    """One object a row, whatever it is: numpy would otherwise take lists of equal shape apart."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
