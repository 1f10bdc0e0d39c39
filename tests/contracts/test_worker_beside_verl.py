"""Our worker beside verl's own, in one process, with the same sampled answers (scripted_worker.py)."""

import pytest

from tests.contracts.scripted_worker import BROKEN, RIGHT, WRONG, ScriptedExpert, comparable

pytestmark = pytest.mark.contract


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
