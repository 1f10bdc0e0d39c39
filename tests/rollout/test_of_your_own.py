"""The examples of docs/plug_in.md as a user's package: an expert kind, a rule, a reward and a task by dotted name."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ekipl_reward import compute_score
from ekipl_rollout.answer import Candidate
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.settings import EkiplSettings, RecordSettings, SelectSettings
from tests.rollout.expert_helpers import question

PAGE = Path(__file__).parents[2] / "docs" / "plug_in.md"
MOST_LINES = 20


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def my_lab(tmp_path_factory):
    """The page's Python blocks as the files that their first lines name."""
    root = tmp_path_factory.mktemp("user")
    for block in blocks("python"):
        path = root / re.match(r"# (my_lab/\w+\.py)", block)[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(block)
        assert len([line for line in block.splitlines() if line.strip()]) <= MOST_LINES, path
    sys.path.insert(0, str(root))
    yield
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
        del sys.modules[name]


def settings_at(url):
    """The page's YAML, at another address."""
    (block,) = [block for block in blocks("yaml") if "LabExpert" in block]
    values = yaml.safe_load(block)["ekipl"]
    values["experts"][0] |= {"base_url": f"{url}/ask", "retry": {"attempts": 2, "first_wait_s": 0.01}}
    return EkiplSettings.from_config(values)


def lab(fails=0):
    asked = []

    async def ask(request):
        asked.append(json.loads(await request.body()))
        if len(asked) <= fails:
            return JSONResponse({"error": "busy"}, 503)
        return JSONResponse({"answers": [f"answer {i}" for i in range(asked[-1]["count"])]})

    return Starlette(routes=[Route("/ask", ask, methods=["POST"])]), asked


async def test_an_expert_of_your_own_is_asked_retried_and_recorded(serve, tmp_path):
    app, asked = lab(fails=1)
    settings = settings_at(serve(app))
    record = RecordSettings(path=str(tmp_path / "records.sqlite"))
    for _ in range(2):
        (expert,) = build_experts(settings.experts, record)
        answers = await expert.answer(question(), 3)
        await expert.close()
        assert [(a.source, a.text) for a in answers] == [("lab", f"answer {i}") for i in range(3)]
    assert [(a["count"], len(a["pictures"]), a["text"][:15]) for a in asked] == [(3, 1, "How many cubes?")] * 2, (
        "once, retried"
    )


async def test_an_expert_of_your_own_that_stays_away_is_a_failure_as_any_other(serve):
    app, _ = lab(fails=9)
    (expert,) = build_experts(settings_at(serve(app)).experts, RecordSettings(mode="off"))
    with pytest.raises(ExpertError) as caught:
        await expert.answer(question(), 3)
    assert caught.value.failure is Failure.SERVER_ERROR


@pytest.mark.parametrize("kind", ["my_lab.experts.NoSuch", "my_lab.nothing.Expert", "lab", "my_lab.rules.two_of_each"])
def test_a_kind_that_cannot_be_found_is_said_before_anything_starts(kind):
    (expert,) = settings_at("http://127.0.0.1:1").experts
    (problem,) = replace(expert, kind=kind).problems()
    assert f"kind='{kind}' is not known" in problem


def test_a_rule_of_your_own_chooses(my_lab):
    select = SelectSettings(rule="my_lab.rules.two_of_each")
    assert not select.problems()
    ranked = [Candidate(source, i, 1.0) for i, source in enumerate("aaabbbcc")]
    assert [c.source for c in select.apply_rule(ranked, 5)] == list("aabbc")


def too_few_arguments(ranked, num_kept):
    return ranked[:num_kept]


def everything_twice(ranked, num_kept, num_experts):
    return ranked + ranked


def raising(ranked, num_kept, num_experts):
    return ranked[0].reward


@pytest.mark.parametrize(
    "rule, why", [(too_few_arguments, "TypeError"), (everything_twice, "24 answers"), (raising, "reward")]
)
def test_a_rule_that_cannot_work_is_found_out_before_anybody_is_asked(rule, why):
    (problem,) = SelectSettings(rule=f"{__name__}.{rule.__name__}").problems()
    assert "fails on a made-up group" in problem and why in problem


def test_a_reward_of_your_own_has_the_signature_that_verl_calls():
    from my_lab.rewards import words_in_common

    assert words_in_common("mine", solution_str="a red cube", ground_truth="red cube")["accuracy"] == pytest.approx(
        2 / 3
    )


@pytest.mark.usefixtures("forget_registered_tasks")
def test_a_task_of_your_own_is_judged_with_our_format():
    answer = "<think> look </think><answer> Red </answer>"
    result = compute_score("my_colours", answer, "red", task_modules=["my_lab.tasks"])
    assert (result["accuracy"], result["format"]) == (1.0, 1.0)
