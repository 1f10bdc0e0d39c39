"""The answers of one group as verl's AgentLoopOutput: an expert's in the policy's shape, and all of them ready to be written."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from ekipl_rollout.on_verl.pictures import only_shown

processed_pictures: contextvars.ContextVar[dict | None] = contextvars.ContextVar("pictures of this group", default=None)
"""Processed pictures of the group that is being written: computed once and shared by its G rows."""


@contextlib.contextmanager
def written_together(rows: list[tuple[list[AgentLoopOutput], dict]], pad_token_id: int) -> Iterator[None]:
    """The (outputs, row) of one group, changed in place so that they can be written; inside they share what was processed."""
    _share_pictures(rows)
    _vary_lengths(rows, pad_token_id)
    token = processed_pictures.set({})
    try:
        yield
    finally:
        processed_pictures.reset(token)


def _share_pictures(rows: list[tuple[list[AgentLoopOutput], dict]]) -> None:
    """Rows that show nothing but their prompt's pictures point at one list of them, so that it is processed once. Sessions
    that met more on their way (tools) keep their own: as many pictures are not the same pictures."""
    first = None
    for outputs, row in rows:
        for output in outputs:
            if _count(output.multi_modal_data) != _count(only_shown(output.multi_modal_data, row["raw_prompt"])):
                continue
            first = first or output
            if output.prompt_ids == first.prompt_ids:
                output.multi_modal_data = first.multi_modal_data


def _count(data: dict[str, Any] | None) -> list[int]:
    return [len(values or ()) for values in (data or {}).values()]


def _vary_lengths(rows: list[tuple[list[AgentLoopOutput], dict]], pad_token_id: int) -> None:
    """No group whose rows all have one length: every second row gets one more token, masked out of everything.

    When all rows of a fetched batch have the same length, TransferQueue packs M-RoPE `position_ids` (4 x L each) with
    the first dimension ragged, because torch takes the first that can be, and verl 0.9.1 then fails with
    "split_with_sizes ..." or "Expected cond to be True". An untrained model that runs to the length limit does it.
    """
    if len({len(o.prompt_ids) + len(o.response_ids) for outputs, _ in rows for o in outputs}) != 1:
        return
    for outputs, _ in rows[1::2]:
        last = outputs[-1]
        last.response_ids = [*last.response_ids, pad_token_id]
        last.response_mask = [*last.response_mask, 0]
        if last.response_logprobs is not None:
            last.response_logprobs = [*last.response_logprobs, 0.0]


def expert_output(like: AgentLoopOutput, ids: list[int], pictures: dict | None) -> AgentLoopOutput:
    """An expert's answer in the shape of a policy's: same prompt, its pictures, same weight version; one turn, whatever
    the policy's session did after it (its lists, such as tool rewards, are empty here)."""
    extra = {k: [] if isinstance(v, list) else v for k, v in like.extra_fields.items() if k != "reward_extra_info"}
    return like.model_copy(
        update={
            "response_ids": ids,
            "multi_modal_data": pictures,
            "num_turns": 2,
            "response_mask": [1] * len(ids),
            "response_logprobs": None,
            "routed_experts": None,
            "reward_score": None,
            "metrics": AgentLoopMetrics(),
            "extra_fields": extra,
        }
    )
