"""Answers scored under an expert, against a server that speaks vLLM's protocol."""

from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ekipl_rollout.answer import Answer, AnswerStatus, Candidate, Selection
from ekipl_rollout.experts.score import Given, Scorer, can_score, read_score
from ekipl_rollout.on_verl.scoring import Scoring
from tests.rollout.expert_helpers import KEY, expert_settings, picture, question

PROMPT, END = [11, 12, 13], 99


class Vllm:
    """One token a character, each at -code/100; the end token at -9."""

    def __init__(self):
        self.seen: list[dict] = []
        self.broken, self.refuses, self.keys = False, None, set()

    def app(self) -> Starlette:
        async def render(request):
            self.seen.append(await request.json())
            return JSONResponse({"token_ids": PROMPT, "features": {"mm_hashes": {"image": ["h"]}}})

        async def tokenize(request):
            body = await request.json()
            return JSONResponse({"tokens": [ord(c) for c in body["prompt"]], "count": len(body["prompt"])})

        async def generate(request):
            body = await request.json()
            self.seen.append(body)
            self.keys.add(request.headers.get("authorization"))
            if self.broken or self.refuses in body["token_ids"]:
                return JSONResponse({"error": "engine dead"}, 500)
            logs = [
                {str(t): {"logprob": -9.0 if t == END else -t / 100, "rank": 1}}
                for t in body["token_ids"][len(PROMPT) :]
            ]
            return JSONResponse({"choices": [], "prompt_logprobs": [None, {}, {}, *logs]})

        paths = {"/v1/chat/completions/render": render, "/tokenize": tokenize, "/inference/v1/generate": generate}
        return Starlette(routes=[Route(path, call, methods=["POST"]) for path, call in paths.items()])


@pytest.fixture
def server(serve):
    vllm = Vllm()
    vllm.url = serve(vllm.app())
    return vllm


def settings(url, name="gpt"):
    return expert_settings("openai", url, name=name, api_key_env=None, logprobs=True, token_ids=True)


def own_answer(source="gpt"):
    return Answer(source, 0, "x", AnswerStatus.FINISHED, token_ids=[7, END], logprobs=[-1.0, -2.0])


async def test_an_answer_is_scored_after_the_question_with_its_pictures(server):
    scorer = Scorer(settings(server.url))
    scorer.learn_end_token([own_answer()])
    scores = await scorer.log_probabilities(question(picture(), "How many?"), [Given("ab", True), Given("a", False)])
    await scorer.close()
    assert scores == pytest.approx([-0.97 - 0.98 - 9.0, -0.97])
    rendered, *generated = server.seen
    assert [part["type"] for part in rendered["messages"][0]["content"]][:2] == ["image_url", "text"]
    assert sorted(g["token_ids"] for g in generated) == [[*PROMPT, 97], [*PROMPT, 97, 98, END]]
    assert all(g["features"] == {"mm_hashes": {"image": ["h"]}} for g in generated)
    assert all(g["sampling_params"]["prompt_logprobs"] == 0 for g in generated)


async def test_a_finished_answer_is_not_scored_without_an_end_token(server):
    scorer = Scorer(settings(server.url))
    scores = await scorer.log_probabilities(question(), [Given("ab", True), Given("a", False)])
    await scorer.close()
    assert scores == [None, pytest.approx(-0.97)]


async def test_a_server_that_fails_scores_nothing_and_raises_nothing(server):
    server.broken = True
    scorer = Scorer(settings(server.url))
    assert await scorer.log_probabilities(question(), [Given("ab", True)] * 2) == [None, None]
    await scorer.close()


async def test_an_answer_that_the_server_refuses_costs_no_other_its_score(server):
    server.refuses = ord("z")
    scorer = Scorer(settings(server.url))
    scores = await scorer.log_probabilities(question(), [Given("a", False), Given("z", False), Given("b", False)])
    assert scores == [pytest.approx(-0.97), None, pytest.approx(-0.98)]
    await scorer.close()


async def test_a_key_is_sent_and_not_shown(server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    scorer = Scorer(replace(settings(server.url), api_key_env="TEST_KEY"))
    assert await scorer.log_probabilities(question(), [Given("a", False)]) == [pytest.approx(-0.97)]
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in repr(vars(scorer))
    await scorer.close()


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"prompt_logprobs": None},
        {"prompt_logprobs": [None, {"5": {"logprob": -1.0}}]},
        {"prompt_logprobs": [None, {}, {"6": {}}]},
    ],
)
def test_a_reply_that_does_not_hold_every_token_is_no_score(reply):
    assert read_score(reply, 1, [5, 6]) is None


async def test_every_kept_answer_is_scored_under_every_expert_and_the_own_one_is_not_asked_again(server):
    scoring = Scoring([settings(server.url, "gpt"), settings(server.url, "other")])
    kept = [Candidate("policy", 0, 1.0, text="ab"), Candidate("gpt", 1, 1.0, text="x", log_own=-3.0)]
    finished = {0: True, 1: True}
    scored = await scoring.score(
        Selection(kept, []), {"policy", "gpt"}, question(), [own_answer(), own_answer("other")], finished
    )
    assert [set(c.log_under) for c in scored.kept] == [{"gpt"}, {"gpt"}]  # `other` gave nothing: its share is 0
    assert scored.kept[1].log_under["gpt"] == -3.0
    await scoring.close()


async def test_what_cannot_be_scored_is_dropped_with_the_reason(server):
    server.broken = True
    scoring = Scoring([settings(server.url)])
    kept = [Candidate("policy", 0, 1.0, text="ab"), Candidate("gpt", 1, 1.0, text="x", log_own=-3.0)]
    scored = await scoring.score(Selection(kept, []), {"policy", "gpt"}, question(), [], {0: True, 1: True})
    assert ([c.source for c in scored.kept], [why for _, why in scored.dropped]) == (["gpt"], ["not_scored"])
    await scoring.close()


async def test_a_server_is_found_out_before_the_run(server):
    assert await can_score(settings(server.url))
    assert not await can_score(settings("http://127.0.0.1:9"))
