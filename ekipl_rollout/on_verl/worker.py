"""The rollout worker that brings the experts in: verl's agent-loop worker with another idea of what a group is.

verl starts `_run_prompt` once per row; it owns all sessions of that row, that is one GRPO group. Ours asks the policy
and the experts at the same time, holds every answer back until it is judged, keeps the best G, and writes only those to
TransferQueue, through verl's own code. Trainer, advantage and update never see the difference.

Switched on by `actor_rollout_ref.rollout.agent.agent_loop_manager_class=ekipl_rollout.on_verl.worker.EkiplManager`.
"""

import asyncio
import logging
import os
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ, _settle_session_tasks

import ekipl_rollout.on_verl.advantage  # noqa: F401  registers the estimator in verl's task runner
from ekipl_rollout.answer import POLICY, Answer, Candidate, Question, Selection
from ekipl_rollout.group_files import GroupWriter
from ekipl_rollout.group_filter import select
from ekipl_rollout.group_report import Rollout, summarize
from ekipl_rollout.on_verl.asking import CLOSING_S, Asking
from ekipl_rollout.on_verl.judge import GroupJudge
from ekipl_rollout.on_verl.lookahead import next_rows
from ekipl_rollout.on_verl.outputs import expert_output, processed_pictures, written_together
from ekipl_rollout.on_verl.pictures import ProcessorWithMemory, only_shown
from ekipl_rollout.on_verl.running import running_trainer
from ekipl_rollout.on_verl.sampler import TAG
from ekipl_rollout.on_verl.scoring import Scoring
from ekipl_rollout.on_verl.shared_bounds import needs_bounds, start_bounds
from ekipl_rollout.prompt import question_of
from ekipl_rollout.settings import EkiplSettings
from ekipl_rollout.tokens import Encoder, UnusableAnswer

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "WARN"))

# verl decorates AgentLoopWorkerTQ with @ray.remote and Ray refuses to subclass an actor class, so we inherit from the
# plain class underneath and make our own actor from it.
_PlainWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


@dataclass
class _Group:
    """A group while its policy sessions run."""

    judge: GroupJudge
    held: list[tuple[list[AgentLoopOutput], dict]] = field(default_factory=list)
    """(outputs, row) of each session that has ended, judged."""

    rollout_s: float = 0.0
    """Seconds until the last session had ended."""


class EkiplWorker(_PlainWorker):
    """verl's worker; training prompts become mixed groups, validation prompts take verl's own way."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.ekipl = EkiplSettings.from_config(self.config.get("ekipl"))
        if self.reward_loop_worker_handles is None:
            raise RuntimeError(
                "experts are chosen by reward, so rewards must be known at rollout time: use a reward function or reward.reward_model.enable_resource_pool=True"
            )
        length, as_it_came = self.rollout_config.response_length, self.ekipl.weights.needs_own
        self._encoder = Encoder.for_tokenizer(self.tokenizer, length, self.ekipl.too_long, strip=not as_it_came)
        if self.processor is not None:
            self.processor = ProcessorWithMemory(self.processor)
        self._asking, self._scoring = Asking(self.ekipl), Scoring(self.ekipl.experts)
        self._groups: dict[str, _Group] = {}
        self._files = GroupWriter(self.ekipl.run_dir) if self.ekipl.run_dir and self.ekipl.keep_groups else None

    async def generate_sequences(self, batch: TensorDict) -> None:
        self._asking.start()  # here and not in __init__: SDK clients belong to the loop that uses them
        self._asking.errands.forget_before(int(batch["global_steps"]))
        await super().generate_sequences(batch)

    async def ask_ahead(self, rows: list[tuple[Question, str]]) -> None:
        """Rows that will come with the next step: (question, data source)."""
        self._asking.start()
        self._asking.ask_ahead(rows, self.ekipl.num_answers)

    async def close(self) -> None:
        """The run ends: what is out is recorded and settled."""
        await self._asking.close()
        await self._scoring.close()

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        if trajectory["validate"]:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
            return
        uid = prompt["uid"]
        await tq.async_kv_put(key=uid, partition_id="train", tag={"status": "running"})
        try:
            tag = await self._run_group(uid, prompt, sampling_params, trajectory, trace)
        except Exception:
            logger.exception("group %s failed", uid)
            tag = {"status": "failure"}
        finally:
            self._groups.pop(uid, None)
        await tq.async_kv_put(key=uid, partition_id="train", tag=tag)

    async def _run_group(self, uid: str, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool) -> dict:
        """Ask, judge, keep, write. Returns the prompt's final tag."""
        n = prompt.pop("__rollout_n__", self.ekipl.num_answers)
        if not prompt.pop("__do_sample__", True):
            sampling_params = {**sampling_params, "top_p": 1.0, "top_k": -1, "temperature": 0}
        group = self._groups[uid] = _Group(GroupJudge(self.reward_loop_worker_handles))
        policy = self._ask_policy(n, prompt, sampling_params, trajectory, trace)
        errors, asked = await self._asking.ask(policy, prompt, trajectory["step"], n, lambda: self._policy(group))
        candidates = self._policy(group)
        unusable: list[tuple[Answer, str]] = []
        if candidates:
            candidates += await self._judge_experts(asked.answers, candidates[0].payload, n, unusable)
        num_kept = self.config.actor_rollout_ref.rollout.n
        tie_seed = seed_of(self.ekipl.seed, trajectory["step"], prompt.get("index"))
        keep, advantage = self.ekipl.select, self.ekipl.advantage
        selection = select(candidates, num_kept, keep, advantage.baseline, tie_seed)
        if self.ekipl.weights.needs_all:
            selection = await self._score(selection, candidates, prompt, trajectory["step"], asked.answers)
        await self._write([c.payload for c in selection.kept])
        if self._files:
            self._files.write(trajectory["step"], _row_of(prompt), selection, unusable)
        rollout = Rollout(len(errors), group.rollout_s)
        summary = summarize(candidates, selection, asked, num_kept, unusable, keep, advantage, rollout)
        return {
            "status": "failure" if errors else "finished",
            TAG: {**summary, "order": self._order(prompt, trajectory["step"])},
        }

    def _order(self, prompt: dict, step: int) -> int:
        """The group's place in the batch; rows of different files can have the same index."""
        row = _row_of(prompt)
        return seed_of(self.ekipl.seed, step, row["data_source"], row["row"], row["truth"])

    async def _score(
        self, selection: Selection, candidates: list[Candidate], prompt: dict, step: int, answers: list[Answer]
    ) -> Selection:
        """Kept answers under every expert that has a share in the group."""
        end = self.tokenizer.eos_token_id
        finished = {c.session: c.payload[0][-1].response_ids[-1:] == [end] for c in selection.kept}
        question = question_of(prompt["raw_prompt"], prompt["uid"], step)
        return await self._scoring.score(selection, {c.source for c in candidates}, question, answers, finished)

    async def _ask_policy(
        self, n: int, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool
    ) -> list[BaseException]:
        """verl's own sessions; `_agent_loop_postprocess` holds their answers. Returns the errors, as verl counts them."""
        sessions, started = [], time.monotonic()
        for i in range(n):
            sampling = dict(sampling_params)
            if self.ekipl.seeded_policy:
                sampling["seed"] = seed_of(self.ekipl.seed, trajectory["step"], prompt.get("index"), i)
            loop = self._run_agent_loop(sampling, trajectory=trajectory, trace=trace, session_id=i, **prompt)
            sessions.append(asyncio.create_task(loop))
        errors = await _settle_session_tasks(sessions)
        self._groups[prompt["uid"]].rollout_s = time.monotonic() - started
        for error in errors:
            logger.error("a policy session of group %s failed", prompt["uid"], exc_info=error)
        return errors

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        """verl's sessions end here. Training answers are judged and held; `_write` sends the winners on."""
        group = None if validate else self._groups.get(kwargs["uid"])
        if group is None:
            await super()._agent_loop_postprocess(output, validate, **kwargs)
            return
        outputs = output if isinstance(output, list) else [output]
        if outputs:
            await group.judge.score(outputs[-1], kwargs)
            group.held.append((outputs, kwargs))

    async def _judge_experts(self, answers: list[Answer], example: tuple, n: int, unusable: list) -> list[Candidate]:
        """Expert answers as candidates, shaped like the policy's `example`; what cannot be used is counted."""
        (like, *_), kwargs = example
        pictures = only_shown(like.multi_modal_data, kwargs["raw_prompt"])
        usable: list[tuple[Answer, AgentLoopOutput, dict]] = []
        for answer in answers:
            try:
                ids = self._encoder.encode(answer)
            except UnusableAnswer as error:
                unusable.append((answer, error.reason))
                continue
            if self.ekipl.weights.needs_own and answer.log_probability is None:
                unusable.append((answer, "no_log_probability"))
                continue
            usable.append((answer, expert_output(like, ids, pictures), {**kwargs, "session_id": n + len(usable)}))
        await asyncio.gather(*(self._compute_score([output], kwargs) for _, output, kwargs in usable))
        candidates = [self._candidate(answer.source, [output], kwargs) for answer, output, kwargs in usable]
        for candidate, (answer, _, _) in zip(candidates, usable, strict=True):
            candidate.log_own = answer.log_probability
        return candidates

    def _policy(self, group: _Group) -> list[Candidate]:
        """The policy's answers that have come and are judged."""
        held = sorted(group.held, key=lambda entry: entry[1]["session_id"])
        return [self._candidate(POLICY, outputs, kwargs) for outputs, kwargs in held]

    def _candidate(self, source: str, outputs: list[AgentLoopOutput], kwargs: dict) -> Candidate:
        last = outputs[-1]
        return Candidate(
            source=source,
            session=kwargs["session_id"],
            score=float(last.reward_score),
            parts=last.extra_fields.get("reward_extra_info", {}),
            length=sum(last.response_mask),
            text=self.tokenizer.decode(last.response_ids, skip_special_tokens=True),
            payload=(outputs, kwargs),
        )

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        """Answers of a group that is being built go to its judge; everything else takes verl's own way."""
        group = self._groups.get(kwargs["uid"])
        if group is None:
            await super()._compute_score(outputs, kwargs)
        else:
            await group.judge.score(outputs[-1], kwargs)

    async def _write(self, rows: list[tuple[list[AgentLoopOutput], dict]]) -> None:
        """The kept rows into TransferQueue, by verl's own code."""
        with written_together(rows, self.tokenizer.pad_token_id):
            writes = [_PlainWorker._agent_loop_postprocess(self, outputs, False, **kwargs) for outputs, kwargs in rows]
            await asyncio.gather(*writes)

    def _compute_multi_modal_inputs(self, output: AgentLoopOutput, input_ids: torch.Tensor) -> dict:
        memory, pictures = processed_pictures.get(), (output.multi_modal_data or {}).get("images")
        if memory is None or not pictures:
            return super()._compute_multi_modal_inputs(output, input_ids)
        if id(pictures) not in memory:
            memory[id(pictures)] = super()._compute_multi_modal_inputs(output, input_ids)
        return dict(memory[id(pictures)])


def seed_of(*parts: Any) -> int:
    """31 bits that depend on `parts` and on nothing else."""
    return zlib.crc32(repr([str(part) for part in parts]).encode()) & 0x7FFFFFFF


def _row_of(prompt: dict) -> dict[str, Any]:
    """What identifies a row for people: id, data source, truth."""
    extra = prompt.get("extra_info") or {}
    reward_model = prompt.get("reward_model") or {}
    return {
        "uid": prompt["uid"],
        "row": extra.get("id", extra.get("index")),
        "index": extra.get("index"),
        "data_source": prompt.get("data_source"),
        "truth": reward_model.get("ground_truth"),
    }


class EkiplManager(AgentLoopManagerTQ):
    """verl's manager with our worker, and the bounds that all workers share."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)  # it sets agent_loop_workers_class itself; workers are created later
        self.agent_loop_workers_class = ray.remote(EkiplWorker)
        self.ekipl = EkiplSettings.from_config(self.config.get("ekipl"))
        self.trainer = running_trainer()
        self._bounds = start_bounds(self.ekipl) if needs_bounds(self.ekipl) else None
        self._closed = False

    def generate_sequences(self, prompts: TensorDict) -> None:
        validate = "validate" in prompts
        super().generate_sequences(prompts)
        if self.ekipl.ask.ahead and self.trainer is not None and not validate:
            try:
                self._ask_ahead(next_rows(self.trainer))
            except Exception:  # it saves time, and nothing depends on it
                logger.exception("the next rows cannot be known; nothing is asked ahead any more")
                self.trainer = None

    def _ask_ahead(self, rows: list[tuple[Question, str]]) -> None:
        """Each row goes to the worker that will get it; nobody waits."""
        size = -(-len(rows) // len(self.agent_loop_workers)) or 1  # as TensorDict.chunk deals them out
        for number, worker in enumerate(self.agent_loop_workers):
            if part := rows[number * size : (number + 1) * size]:
                worker.ask_ahead.remote(part)

    def close(self) -> None:
        """Ends what workers have out, while they still can. Nothing can be asked afterwards; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        closing = [worker.close.remote() for worker in self.agent_loop_workers]
        _, missing = ray.wait(closing, num_returns=len(closing), timeout=CLOSING_S + 10)
        if missing:
            logger.warning("%d workers did not end in time; what they had out is charged in full", len(missing))
        if self._bounds is not None:
            ray.get(self._bounds.close.remote())
