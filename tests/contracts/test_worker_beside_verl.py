"""Our worker beside verl's own, in one process, with the same sampled answers (scripted_worker.py)."""

import numpy as np
import pytest
import torch

from tests.contracts.scripted_worker import BROKEN, RIGHT, WRONG, ScriptedExpert, prompt

pytestmark = pytest.mark.contract


def comparable(value):
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), tuple(value.shape), value.tolist())
    if isinstance(value, dict):
        return {k: comparable(v) for k, v in value.items() if k not in ("generate_sequences", "compute_score")}
    if isinstance(value, (list, tuple)):
        return [comparable(v) for v in value]
    if isinstance(value, np.ndarray):
        return comparable(value.tolist())
    return repr(value) if type(value).__module__.startswith("PIL") else value


def test_without_experts_rows_fields_and_tags_are_those_of_verls_own_worker(run, classes):
    theirs, ours = classes
    texts = [RIGHT, WRONG, BROKEN, RIGHT + " and more"]
    stock, mine = run(theirs, texts), run(ours, texts)
    assert set(stock.rows) == set(mine.rows)
    assert len(stock.rows) == 4
    by_text = lambda q: {tuple(r["responses"].tolist()): (r, q.tags[k]) for k, r in q.rows.items()}  # noqa: E731
    expected, got = by_text(stock), by_text(mine)
    assert set(expected) == set(got)
    for key, (row, tag) in expected.items():
        other, other_tag = got[key]
        assert set(row.keys()) == set(other.keys())
        assert tag == other_tag
        for field in sorted(row.keys()):
            if field not in ("raw_prompt", "session_id"):  # pictures compare by identity; sessions race for the script
                assert comparable(row[field]) == comparable(other[field]), field
    assert mine.prompts["u1"]["status"] == stock.prompts["u1"]["status"] == "finished"


class LooksTwice:
    """An agent loop of two turns whose second one sees a picture that a tool brought."""

    async def run(self, sampling_params, **kwargs):
        from PIL import Image
        from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

        shown = await self.process_multi_modal_info(kwargs["raw_prompt"])
        prompt_ids = await self.ct_build_initial_tokens(kwargs["raw_prompt"], images=shown["images"])
        say = self.tokenizer.encode
        vision = "<|vision_start|>" + "<|image_pad|>" * 9 + "<|vision_end|>"
        parts = [(say("look"), 1), (say(vision), 0), (say(RIGHT if kwargs["session_id"] else WRONG), 1)]
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=[i for ids, _ in parts for i in ids],
            response_mask=[mask for ids, mask in parts for _ in ids],
            multi_modal_data={"images": [*shown["images"], Image.new("RGB", (84, 84), "blue")]},
            num_turns=4,
            metrics=AgentLoopMetrics(),
            extra_fields={"turn_scores": [], "tool_rewards": [0.5], "min_global_steps": 3, "max_global_steps": 3},
        )


def test_beside_sessions_with_tools_an_experts_row_is_the_prompt_and_one_answer(run, classes, monkeypatch):
    from verl.experimental.agent_loop import agent_loop

    loop = type("LooksTwiceLoop", (LooksTwice, agent_loop.AgentLoopBase), {})
    monkeypatch.setitem(agent_loop._agent_loop_registry, "looks_twice", {"_target_": _named(loop)})
    expert = ScriptedExpert("gpt", RIGHT + " 1", RIGHT + " 2")
    queue = run(classes[1], [], [expert], made={**prompt(), "agent_name": "looks_twice"})
    assert queue.prompts["u1"]["status"] == "finished"
    rows = {
        queue.worker.tokenizer.decode(row["responses"], skip_special_tokens=True): row for row in queue.rows.values()
    }
    policy = next(row for text, row in rows.items() if text.startswith("look"))
    experts = rows[RIGHT + " 1"]
    assert (len(policy["multi_modal_inputs"]["image_grid_thw"]), policy["num_turns"]) == (2, 4)
    assert (len(experts["multi_modal_inputs"]["image_grid_thw"]), experts["num_turns"]) == (1, 2)
    assert policy["extra_fields"]["tool_rewards"] == [0.5]
    assert experts["extra_fields"]["tool_rewards"] == []
    assert experts["response_mask"].all()
    assert not policy["response_mask"].all()
    assert experts["prompts"].tolist() == policy["prompts"].tolist()


def _named(cls):
    """The class under a dotted name, as verl's registry looks agent loops up."""
    globals()[cls.__name__] = cls
    return f"{__name__}.{cls.__name__}"


def test_an_expert_row_looks_like_a_policy_row(run, classes):
    queue = run(classes[1], [BROKEN + " a", BROKEN + " b", WRONG, BROKEN], [ScriptedExpert("gpt", RIGHT, RIGHT + " 2")])
    rows = {queue.worker.tokenizer.decode(r["responses"], skip_special_tokens=True): r for r in queue.rows.values()}
    expert, policy = rows[RIGHT], rows[WRONG]
    assert set(expert.keys()) == set(policy.keys())
    assert expert["prompts"].tolist() == policy["prompts"].tolist()
    assert expert["rm_scores"].sum().item() == 2.0
    assert expert["position_ids"].shape == (4, len(expert["input_ids"]))
    assert expert["responses"][-1].item() == queue.worker.tokenizer.eos_token_id


def test_a_policy_session_that_fails_is_reported_as_verl_does_and_the_rest_is_kept(run, classes):
    theirs, ours = classes
    texts = [RIGHT, RuntimeError("vllm died"), WRONG, BROKEN]
    stock, mine = run(theirs, texts), run(ours, texts, [ScriptedExpert("gpt", RIGHT + " 1")])
    assert stock.prompts["u1"]["status"] == mine.prompts["u1"]["status"] == "failure"
    assert len(stock.rows) == 3
    assert len(mine.rows) == 4


def test_validation_takes_verls_own_way(run, classes):
    expert = ScriptedExpert("gpt", RIGHT)
    queue = run(classes[1], [RIGHT], [expert], validate=True)
    assert len(queue.rows) == 1
    assert not hasattr(expert, "question")
    assert "ekipl" not in queue.prompts["u1"]


def test_pictures_are_processed_twice_a_prompt_and_not_twice_an_answer(run, classes, monkeypatch):
    from transformers.models.qwen2_vl import Qwen2VLProcessor

    calls = []
    original = Qwen2VLProcessor.__call__
    monkeypatch.setattr(Qwen2VLProcessor, "__call__", lambda *a, **k: calls.append(1) or original(*a, **k))
    texts, expert = [RIGHT, WRONG, BROKEN, RIGHT], ScriptedExpert("gpt", RIGHT, RIGHT, RIGHT, WRONG)
    run(classes[0], texts)
    stock = len(calls)
    run(classes[1], texts, [expert])
    assert (stock, len(calls) - stock) == (12, 2)


def as_the_actor_gets_them(queue):
    """Position ids of all rows, packed by TransferQueue, mended and taken apart into micro-batches by verl."""
    from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager
    from verl.utils import tensordict_utils as tu

    rows = list(queue.rows.values())
    packed = AsyncSimpleStorageManager._pack_field_values([row["position_ids"] for row in rows])
    batch = tu.get_tensordict({"position_ids": packed})
    tu.maybe_fix_3d_position_ids(batch)
    return [part.shape for part in tu.index_select_tensor_dict(batch, list(range(len(rows))))["position_ids"].unbind(0)]


def test_equal_lengths_crash_verl_and_ours_never_are(run, classes):
    theirs, ours = classes
    texts = [RIGHT, WRONG, RIGHT, WRONG]
    stock, mine = run(theirs, texts), run(ours, texts)
    lengths = lambda queue: {len(row["input_ids"]) for row in queue.rows.values()}  # noqa: E731
    assert len(lengths(stock)) == 1
    assert len(lengths(mine)) == 2
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        as_the_actor_gets_them(stock)
    assert sorted({shape[1] for shape in as_the_actor_gets_them(mine)}) == sorted(lengths(mine))
    extended = [row for row in mine.rows.values() if len(row["input_ids"]) == max(lengths(mine))]
    assert all(row["response_mask"].tolist()[-2:] == [1, 0] for row in extended)
