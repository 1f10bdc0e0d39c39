"""Our reward in every place where verl calls one: its loader, the reward loop worker (also as a Ray actor), validation,
and the group judge. The same answer gets the same dict everywhere, and a failure stays with its own answer."""

import asyncio
import os

import numpy as np
import pytest
import ray

import ekipl_reward
from ekipl_reward import compute_score, symbolic

pytestmark = pytest.mark.contract

ROOT = os.path.dirname(os.path.dirname(ekipl_reward.__file__))
ROWS = [
    ("clevr_math", "<think> 5 - 2 </think><answer> 3.0 </answer>", "3"),
    ("clevr_math", "The answer is 3", "3"),
    ("geomath", "<think> a </think><answer> 46° </answer>", "45"),
    ("geometry3k", "<think> a </think><answer> 5\\sqrt2 </answer>", "5\\sqrt{2}"),
    ("geometry3k", "<think> a </think><answer> (b) </answer>", "B"),
    ("trance", "<think> a </think><answer> change_color(0, red) </answer>", "change_color(0, blue)"),
]


@pytest.fixture(scope="module")
def configured(model):
    """configured(*overrides) -> the shipped config of a run."""
    from recipe.ekipl.compose import compose_config

    def make(*overrides):
        return compose_config("ekipl_tiny", [f"actor_rollout_ref.model.path={model}", *overrides])

    return make


def answer_of(tokenizer, text):
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return AgentLoopOutput(
        prompt_ids=[5, 6, 7], response_ids=ids, response_mask=[1] * len(ids), num_turns=2, metrics=AgentLoopMetrics()
    )


def row_of(source, truth):
    return {
        "data_source": source,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": 0},
        "uid": "u",
    }


def requests(tokenizer, rows=ROWS):
    from ekipl_rollout.on_verl.judge import reward_request

    return [reward_request([(answer_of(tokenizer, text), row_of(source, truth))]) for source, text, truth in rows]


def expected(tokenizer, **options):
    """What compute_score says of the text that the reward worker decodes."""
    texts = [tokenizer.decode(answer_of(tokenizer, text).response_ids, skip_special_tokens=True) for _, text, _ in ROWS]
    return [compute_score(source, text, truth, **options) for (source, _, truth), text in zip(ROWS, texts, strict=True)]


def test_verls_loader_finds_the_function_and_hands_it_our_options(configured):
    from verl.trainer.ppo.reward import get_custom_reward_fn

    arguments = {"data_source": "trance", "solution_str": ROWS[5][1], "ground_truth": ROWS[5][2], "extra_info": {}}
    assert get_custom_reward_fn(configured())(**arguments)["accuracy"] == 0.5
    assert get_custom_reward_fn(configured("ekipl.reward.spatial=full"))(**arguments)["accuracy"] == 0.0
    released = configured(
        "reward.custom_reward_function.reward_kwargs.rules=released", "ekipl.reward.format_weight=0.5"
    )
    assert get_custom_reward_fn(released)(**arguments)["score"] == 0.5


@pytest.mark.parametrize("rules", ["paper", "released"])
def test_the_reward_loop_worker_gives_what_the_function_gives(configured, rules):
    """The worker's compute_score is what validation and rows outside a group go through; batches are for groups."""
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    async def run():
        worker = RewardLoopWorker(configured(f"ekipl.reward.rules={rules}"))
        one_by_one = [await worker.compute_score(request) for request in requests(worker.input_tokenizer)]
        at_once = await asyncio.gather(*(worker.compute_score(request) for request in requests(worker.input_tokenizer)))
        return worker.input_tokenizer, one_by_one, at_once

    tokenizer, one_by_one, at_once = asyncio.run(run())
    wanted = expected(tokenizer, rules=rules)
    assert [result["reward_extra_info"] for result in one_by_one] == wanted
    assert [result["reward_score"] for result in one_by_one] == [result["score"] for result in wanted]
    assert at_once == one_by_one


def test_verls_validation_averages_our_numbers_and_passes_over_our_texts():
    from verl.trainer.ppo.metric_utils import process_validation_metrics

    results = [compute_score(*row) for row in ROWS]
    infos = {key: [result[key] for result in results] for key in results[0]}
    metrics = process_validation_metrics([row[0] for row in ROWS], [f"u{i}" for i in range(len(ROWS))], infos)
    assert metrics["clevr_math"]["acc"]["mean@1"] == 0.5
    assert set(metrics["trance"]) == {"score", "format", "accuracy", "acc"}


@pytest.fixture(scope="module")
def ray_worker(configured, tmp_path_factory):
    """verl's reward loop worker as verl makes it: a Ray actor, here with a task of the user's whose judge raises."""
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    lab = tmp_path_factory.mktemp("lab")
    (lab / "raising_lab.py").write_text(
        "from ekipl_reward import register_task\n"
        "@register_task('raising')\n"
        "def judge(answer, truth):\n"
        "    raise RuntimeError('a bug of the user')\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join([ROOT, str(lab)])}
    ray.init(
        num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment}
    )

    class Worker(RewardLoopWorker):
        def where(self):
            return ekipl_reward.__file__

        def compare(self, pairs):
            return [tuple(symbolic.compare(*pair)) for pair in pairs]

    yield ray.remote(Worker).remote(configured("ekipl.reward.task_modules=[raising_lab]"))
    ray.shutdown()


def test_expressions_compare_in_a_ray_worker_as_here(ray_worker):
    pairs = [("5\\sqrt2", "5\\sqrt{2}"), ("7.07", "5\\sqrt{2}"), ("y+x", "x+y"), ("2 or 3", "3"), ("9^{9^{9}}", "1")]
    assert ray.get(ray_worker.where.remote()) == ekipl_reward.__file__
    assert ray.get(ray_worker.compare.remote(pairs)) == [tuple(symbolic.compare(*pair)) for pair in pairs]


def test_a_group_is_judged_in_a_ray_worker_as_here_and_a_failure_stays_with_its_answer(ray_worker, model):
    from verl.utils import hf_tokenizer

    from ekipl_rollout.on_verl.judge import GroupJudge

    tokenizer = hf_tokenizer(str(model))
    broken = [
        ("raising", ROWS[0][1], "3"),  # a judge that raises
        ("clevr_math", ROWS[0][1], "three"),  # a truth that no check has seen
        ("imagenet", ROWS[0][1], "3"),  # a data source without a judge
    ]

    async def run():
        judge, outputs = GroupJudge([ray_worker]), []
        for source, text, truth in [*ROWS[:3], *broken, *ROWS[3:]]:
            outputs.append((answer_of(tokenizer, text), row_of(source, truth)))
        await asyncio.gather(*(judge.score(output, row) for output, row in outputs))
        return [output for output, _ in outputs]

    outputs = asyncio.run(run())
    failed, judged = outputs[3:6], [*outputs[:3], *outputs[6:]]
    wanted = expected(tokenizer)
    assert [output.extra_fields["reward_extra_info"] for output in judged] == wanted
    assert np.isclose([output.reward_score for output in judged], [result["score"] for result in wanted]).all()
    assert [output.reward_score for output in failed] == [0.0] * 3
    assert {output.extra_fields["reward_extra_info"]["reason"] for output in failed} == {"reward_error"}


def test_a_reward_worker_that_is_gone_costs_the_group_and_is_not_taken_for_wrong_answers(ray_worker, model):
    from ray.exceptions import RayActorError
    from verl.utils import hf_tokenizer

    from ekipl_rollout.on_verl.judge import GroupJudge

    tokenizer = hf_tokenizer(str(model))
    ray.kill(ray_worker)
    source, text, truth = ROWS[0]

    async def run():
        judge = GroupJudge([ray_worker])
        answers = [judge.score(answer_of(tokenizer, text), row_of(source, truth)) for _ in range(3)]
        return await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 60)

    assert {type(found) for found in asyncio.run(run())} <= set(RayActorError.__subclasses__()) | {RayActorError}
