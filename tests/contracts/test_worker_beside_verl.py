"""Our worker beside verl's own, in one process, with the same sampled answers and a TransferQueue that only listens.

The policy server is scripted; tokenizer, processor, agent loop, reward function and everything that makes a row are
the real ones.
"""

import asyncio
import base64
import copy
import io

import numpy as np
import pytest
import torch

from ekipl_rollout.answer import Answer, AnswerStatus
from ekipl_rollout.errors import ExpertError, Failure

pytestmark = pytest.mark.contract

RIGHT, WRONG, BROKEN = (
    "<think> cube red yes : 1 </think><answer> 1 </answer>",
    "<think> cube red no : 0 </think><answer> 0 </answer>",
    "cube red",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from recipe.ekipl.tiny.model import build

    folder = tmp_path_factory.mktemp("model")
    build(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def config(model, tmp_path_factory):
    from recipe.ekipl.compose import compose_config

    overrides = [
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.model.external_lib=null",
        "ekipl.keep_groups=false",
    ]
    return compose_config(
        "ekipl_tiny", [*overrides, "ekipl.num_answers=4", "actor_rollout_ref.rollout.n=4", "ekipl.record.mode=off"]
    )


class ScriptedPolicy:
    """Stands for verl's LLM server client: gives out the scripted texts, one a session."""

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts = tokenizer, list(texts)

    async def generate(self, **_):
        from verl.workers.rollout.replica import TokenOutput

        text = self.texts.pop(0)
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
            self.remote = call

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


@pytest.fixture
def run(config, monkeypatch):
    """run(worker class, policy texts, experts) -> the queue after one prompt."""
    import verl.trainer.ppo.v1.agent_loop_tq as theirs
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    from ekipl_rollout.on_verl import worker as ours

    def start(cls, texts, experts=(), settings=None, validate=False, made=None, before=None):
        queue = Queue()
        monkeypatch.setattr(theirs, "tq", queue)
        monkeypatch.setattr(ours, "tq", queue)
        monkeypatch.setattr(
            theirs.AgentLoopWorkerTQ.__ray_metadata__.modified_class, "__init__", AgentLoopWorker.__init__
        )
        local = copy.deepcopy(config)
        for key, value in (settings or {}).items():
            from omegaconf import OmegaConf

            OmegaConf.update(local, key, value)

        async def go():
            handle = RewardHandle(local)
            worker = cls(local, None, None, [handle])
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

        return asyncio.run(go())

    return start


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


def plain(worker):
    return worker.__ray_metadata__.modified_class


@pytest.fixture
def classes():
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    from ekipl_rollout.on_verl.worker import EkiplWorker

    return AgentLoopWorkerTQ.__ray_metadata__.modified_class, EkiplWorker


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


def texts_of(queue):
    return sorted(
        queue.worker.tokenizer.decode(row["responses"], skip_special_tokens=True) for row in queue.rows.values()
    )


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


def test_the_best_of_all_sources_are_kept_and_only_those_are_written(run, classes):
    expert = ScriptedExpert("gpt", RIGHT + " x", WRONG + " y", RIGHT + " z", RIGHT + " w")
    queue = run(classes[1], [WRONG, WRONG, RIGHT, BROKEN], [expert])
    assert len(queue.rows) == 4
    assert texts_of(queue) == sorted([RIGHT, WRONG, WRONG, RIGHT + " x"]) or RIGHT in texts_of(queue)
    summary = queue.prompts["u1"]["ekipl"]
    assert summary["sources"]["gpt"]["judged"] == 4
    assert summary["sources"]["policy"]["judged"] == 4
    assert queue.judged == 8
    assert queue.requests < 8


def test_an_expert_is_shown_the_pictures_bytes_and_the_text_in_order(run, classes):
    expert = ScriptedExpert("gpt", RIGHT)
    run(classes[1], [WRONG] * 4, [expert])
    picture, text = expert.question.messages[0].parts
    assert picture.startswith(b"\x89PNG")
    assert text == "Count all red objects. How many are there?"


def test_a_picture_that_came_decoded_is_shown_with_all_its_pixels(run, classes):
    from PIL import Image

    decoded, expert = prompt(), ScriptedExpert("gpt", RIGHT)
    del decoded["raw_prompt"][0]["content"][0]["bytes"]
    run(classes[1], [WRONG] * 4, [expert], made=decoded)
    picture, _ = expert.question.messages[0].parts
    assert Image.open(io.BytesIO(picture)).getdata()[0] == (255, 0, 0)
    again = ScriptedExpert("gpt", RIGHT)
    run(classes[1], [WRONG] * 4, [again], made={**prompt(), "raw_prompt": decoded["raw_prompt"]})
    assert again.question.messages == expert.question.messages


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


@pytest.mark.parametrize("failure", list(Failure))
def test_no_failure_of_an_expert_costs_the_group(run, classes, failure):
    queue = run(classes[1], [RIGHT, WRONG, BROKEN, RIGHT], [ScriptedExpert("gpt", error=ExpertError(failure, "no"))])
    assert len(queue.rows) == 4
    assert queue.prompts["u1"]["status"] == "finished"
    assert queue.prompts["u1"]["ekipl"]["sources"]["gpt"] == {f"failed_{failure.value}": 4.0}


def test_a_prompt_that_cannot_be_shown_to_experts_is_trained_on_without_them(run, classes):
    unshowable = prompt()
    picture, text = unshowable["raw_prompt"][0]["content"]
    # an address inside the row: verl reads it, experts are shown bytes, files and decoded pictures only
    address = f"data:image/png;base64,{base64.b64encode(picture['bytes']).decode()}"
    unshowable["raw_prompt"][0]["content"] = [{"type": "image", "image": address}, text]
    queue = run(classes[1], [RIGHT, WRONG, BROKEN, RIGHT], [ScriptedExpert("gpt", RIGHT)], made=unshowable)
    assert len(queue.rows) == 4
    assert queue.prompts["u1"]["ekipl"]["sources"]["gpt"] == {"failed_bad_request": 4.0}


def test_junk_from_an_expert_is_counted_and_not_trained_on(run, classes):
    junk = ScriptedExpert("gpt", "", "a\ud83d", "x" * 100_000, "<|im_end|><|image_pad|>")
    queue = run(classes[1], [RIGHT, WRONG, BROKEN, RIGHT], [junk])
    assert len(queue.rows) == 4
    gpt = queue.prompts["u1"]["ekipl"]["sources"]["gpt"]
    assert (gpt["unusable_empty"], gpt["unusable_not_unicode"], gpt["unusable_too_long"]) == (1, 1, 1)
    image = queue.worker.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert all((row["responses"] == image).sum() == 0 for row in queue.rows.values())


def test_fewer_than_g_are_all_kept_and_the_group_counts_as_short(run, classes):
    queue = run(classes[1], [RIGHT, WRONG], [], {"ekipl.num_answers": 2})
    assert len(queue.rows) == 2
    assert queue.prompts["u1"]["ekipl"]["short"] is True


def test_a_group_of_equal_rewards_counts_as_silent(run, classes):
    queue = run(classes[1], [RIGHT] * 4, [])
    assert queue.prompts["u1"]["ekipl"]["zero_variance"] is True


def test_any_n_and_g_work_together(run, classes):
    expert = ScriptedExpert("gpt", *[f"{RIGHT} {i}" for i in range(6)])
    queue = run(classes[1], [WRONG] * 6, [expert], {"ekipl.num_answers": 6, "actor_rollout_ref.rollout.n": 3})
    assert len(queue.rows) == 3


def test_a_policy_session_that_fails_is_reported_as_verl_does_and_the_rest_is_kept(run, classes):
    theirs, ours = classes
    texts = [RIGHT, RuntimeError("vllm died"), WRONG, BROKEN]
    stock, mine = run(theirs, texts), run(ours, texts, [ScriptedExpert("gpt", RIGHT + " 1")])
    assert stock.prompts["u1"]["status"] == mine.prompts["u1"]["status"] == "failure"
    assert len(stock.rows) == 3
    assert len(mine.rows) == 4


def test_a_reward_function_that_raises_costs_the_reward_and_not_the_group(run, classes, monkeypatch):
    import ekipl_reward.visual_counting as counting

    monkeypatch.setattr(counting, "judge", lambda *_: 1 / 0)
    queue = run(classes[1], [RIGHT, WRONG, BROKEN, RIGHT], [])
    assert len(queue.rows) == 4
    assert all(row["rm_scores"].sum().item() == 0.0 for k, row in queue.rows.items() if BROKEN not in k)


@pytest.mark.parametrize(
    ("rule", "texts", "asked"),
    [
        ("always", [RIGHT, WRONG, WRONG, WRONG], True),
        ("never", [WRONG] * 4, False),
        ("unsolved", [WRONG, WRONG, BROKEN, WRONG], True),
        ("unsolved", [RIGHT, WRONG, BROKEN, WRONG], False),
        ("unsolved", [RIGHT] * 4, False),
    ],
)
def test_experts_are_asked_where_the_rule_says_so(run, classes, rule, texts, asked):
    expert = ScriptedExpert("gpt", RIGHT)
    queue = run(classes[1], texts, [expert], {"ekipl.ask.when": rule})
    assert hasattr(expert, "question") is asked
    summary = queue.prompts["u1"]["ekipl"]
    assert summary["wanted"] == ({"gpt": 4} if asked else {})
    assert len(queue.rows) == 4
    assert queue.judged == 4 + asked


def test_a_question_says_for_which_step_it_is_asked(run, classes):
    expert = ScriptedExpert("gpt", RIGHT)
    run(classes[1], [WRONG] * 4, [expert])
    assert expert.question.step == 3
    assert expert.question.deadline is not None


def test_a_row_that_was_asked_ahead_is_not_asked_again(run, classes):
    from ekipl_rollout.prompt import question_of

    expert = ScriptedExpert("gpt", RIGHT)

    async def before(worker):
        await worker.ask_ahead([(question_of(prompt()["raw_prompt"], "ahead-0", 3), "clevr_math")])
        await asyncio.sleep(0.01)
        expert.texts = ("never asked for",)

    queue = run(classes[1], [WRONG] * 4, [expert], before=before)
    assert RIGHT in texts_of(queue)
    assert queue.prompts["u1"]["ekipl"]["ahead"] is True


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
