"""What the worker makes of a prompt: whom it asks, what is kept, and what no failure may cost (scripted_worker.py)."""

import asyncio
import base64
import io

import pytest

from ekipl_rollout.errors import ExpertError, Failure
from tests.contracts.scripted_worker import BROKEN, RIGHT, WRONG, ScriptedExpert, prompt, texts_of

pytestmark = pytest.mark.contract


def test_the_best_of_all_sources_are_kept_and_only_those_are_written(run, classes):
    expert = ScriptedExpert("gpt", RIGHT + " x", WRONG + " y", RIGHT + " z", RIGHT + " w")
    queue = run(classes[1], [WRONG, WRONG, RIGHT, BROKEN], [expert])
    assert len(queue.rows) == 4
    assert texts_of(queue) == sorted([RIGHT, WRONG, WRONG, RIGHT + " x"])
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
