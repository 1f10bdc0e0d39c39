"""The two real SDKs against real HTTP servers on loopback."""

import asyncio
import io
import json
import pickle

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route

from ekipl_rollout.answer import AnswerStatus, Message, Question
from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.experts.build import EXPERTS, build_experts
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.settings import ExpertSettings, RecordSettings, RetrySettings

KEY = "sk-canary-0123456789"


def picture(color="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def question(*parts):
    return Question("q1", (Message("user", parts or (picture(), "How many cubes?")),))


def openai_reply(*texts, finish="stop", **extra):
    choices = [
        {"index": i, "finish_reason": finish, "message": {"role": "assistant", "content": t, **extra}}
        for i, t in enumerate(texts)
    ]
    usage = {"prompt_tokens": 100, "completion_tokens": 10 * len(texts), "total_tokens": 0}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


def gemini_reply(*texts, finish="STOP"):
    candidates = [
        {"index": i, "finishReason": finish, "content": {"role": "model", "parts": [{"text": t}]}}
        for i, t in enumerate(texts)
    ]
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 6 * len(texts), "thoughtsTokenCount": 4 * len(texts)}
    return {"candidates": candidates, "modelVersion": "m", "usageMetadata": usage}


REPLIES = {"openai": openai_reply, "gemini": gemini_reply}


def provider(reply, seen=None):
    """A server that answers everything with `reply` (a Response, or JSON) and keeps what it was sent."""

    async def handle(request: Request):
        if seen is not None:
            seen.append((request, await request.json()))
        return reply if not isinstance(reply, (dict, list, type(None))) else JSONResponse(reply)

    return Starlette(routes=[Route("/{path:path}", handle, methods=["POST", "GET"])])


def settings(kind, url, **changes):
    base_url = f"{url}/v1" if kind == "openai" else url
    values = {"name": "gpt", "kind": kind, "model": "m", "base_url": base_url, "api_key_env": "TEST_KEY"}
    return ExpertSettings(**{**values, "retry": RetrySettings(attempts=1), **changes})


@pytest.fixture(params=["openai", "gemini"])
def kind(request, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    return request.param


async def ask(configured, count=2, asked=None):
    expert = EXPERTS[configured.kind](configured)
    try:
        return await asyncio.wait_for(expert.answer(asked or question(), count), 10)
    finally:
        await expert.close()


async def test_answers_come_with_text_status_tokens_and_cost(kind, serve):
    url = serve(provider(REPLIES[kind]("one", "two")))
    prices = {"dollars_per_million_input": 10.0, "dollars_per_million_output": 100.0}
    answers = await ask(settings(kind, url, **prices))
    assert [(a.text, a.index, a.status) for a in answers] == [
        ("one", 0, AnswerStatus.FINISHED),
        ("two", 1, AnswerStatus.FINISHED),
    ]
    assert [a.output_tokens for a in answers] == [10, 10]
    assert sum(a.dollars for a in answers) == pytest.approx((100 * 10 + 20 * 100) / 1e6)


async def test_the_picture_goes_out_as_the_bytes_it_is_in_the_order_it_is_shown(kind, serve):
    seen = []
    red, blue = picture("red"), picture("blue")
    url = serve(provider(REPLIES[kind]("x"), seen))
    await ask(settings(kind, url, instruction="Use tags."), 1, question("before", red, "between", blue, "after"))
    body = seen[0][1]
    import base64

    if kind == "openai":
        parts = body["messages"][0]["content"]
        sent = [
            p["text"] if p["type"] == "text" else base64.b64decode(p["image_url"]["url"].split(",")[1]) for p in parts
        ]
    else:
        parts = body["contents"][0]["parts"]
        sent = [p["text"] if "text" in p else base64.urlsafe_b64decode(p["inlineData"]["data"]) for p in parts]
    assert sent == ["before", red, "between", blue, "after", "\nUse tags."]


async def test_all_answers_are_asked_in_one_request(kind, serve):
    seen = []
    url = serve(provider(REPLIES[kind](*"abcdefgh"), seen))
    assert len(await ask(settings(kind, url), 8)) == 8
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (400, Failure.BAD_REQUEST),
        (401, Failure.UNAUTHORIZED),
        (403, Failure.UNAUTHORIZED),
        (404, Failure.NOT_FOUND),
        (429, Failure.RATE_LIMITED),
        (500, Failure.SERVER_ERROR),
        (503, Failure.SERVER_ERROR),
        (529, Failure.SERVER_ERROR),
    ],
)
async def test_each_status_is_told_apart_and_carries_no_key(kind, serve, status, failure):
    error = {"error": {"message": f"your key {KEY} is bad", "code": status, "status": "X"}}
    url = serve(provider(JSONResponse(error, status, headers={"retry-after": "7"})))
    with pytest.raises(ExpertError) as caught:
        await ask(settings(kind, url))
    assert (caught.value.failure, caught.value.status, caught.value.retry_after_s) == (failure, status, 7.0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.failure, again.status) == (failure, status)
    assert KEY not in str(caught.value) + repr(caught.value) + repr(pickle.dumps(caught.value))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "reply",
    [
        PlainTextResponse("<html>hello</html>", media_type="text/html"),
        PlainTextResponse("{not json", media_type="application/json"),
        PlainTextResponse("null", media_type="application/json"),
        PlainTextResponse("", media_type="application/json"),
        JSONResponse({"error": {"message": "odd"}}),
    ],
    ids=["html", "half json", "null", "nothing", "error with 200"],
)
async def test_a_200_that_holds_no_answer_is_a_bad_reply(kind, serve, reply):
    with pytest.raises(ExpertError) as caught:
        await ask(settings(kind, serve(provider(reply))))
    assert caught.value.failure is Failure.BAD_REPLY


async def test_a_refused_connection_is_unreachable(kind):
    with pytest.raises(ExpertError) as caught:
        await ask(settings(kind, "http://127.0.0.1:9"))
    assert caught.value.failure is Failure.UNREACHABLE


async def test_a_redirect_is_not_followed(kind, serve):
    seen = []
    other = serve(provider(REPLIES[kind]("stolen"), seen))
    url = serve(provider(RedirectResponse(other + "/x", 307)))
    with pytest.raises(ExpertError):
        await ask(settings(kind, url))
    assert seen == []


async def test_endings_are_told_apart(serve, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    cut = await ask(settings("openai", serve(provider(openai_reply("half", finish="length")))), 1)
    filtered = await ask(settings("openai", serve(provider(openai_reply(None, finish="content_filter")))), 1)
    refused = await ask(settings("openai", serve(provider(openai_reply(None, refusal="I will not")))), 1)
    empty = await ask(settings("openai", serve(provider(openai_reply("")))), 1)
    thought = await ask(settings("gemini", serve(provider(gemini_reply("", finish="MAX_TOKENS")))), 1)
    unsafe = await ask(settings("gemini", serve(provider(gemini_reply("", finish="SAFETY")))), 1)
    assert [a[0].status.value for a in (cut, filtered, refused, empty, thought, unsafe)] == [
        "cut_at_length",
        "blocked",
        "refused",
        "empty",
        "empty",
        "blocked",
    ]


async def test_openais_key_in_the_environment_is_not_sent_to_another_server(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    seen = []
    url = serve(provider(openai_reply("x"), seen))
    await ask(settings("openai", url, api_key_env=None), 1)
    headers = dict(seen[0][0].headers)
    assert KEY not in json.dumps(headers)
    assert "org-secret" not in json.dumps(headers)


def test_a_key_cannot_be_printed_or_pickled(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    secret = Secret.from_env("TEST_KEY")
    assert KEY not in f"{secret} {secret!r} {vars}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize("value", ["", "   ", "two words", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_at_start_up(monkeypatch, value):
    monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(SettingsError, match="TEST_KEY"):
        Secret.from_env("TEST_KEY")


async def test_a_recorded_answer_is_never_asked_for_again(kind, serve, tmp_path):
    seen = []
    url = serve(provider(REPLIES[kind]("one", "two"), seen))
    configured, record = settings(kind, url), RecordSettings("record", str(tmp_path / "r.sqlite"))
    for _ in range(2):
        (expert,) = build_experts([configured], record)
        answers = await expert.answer(question(), 2)
        await expert.close()
    assert len(seen) == 1
    assert [(a.text, a.recorded) for a in answers] == [("one", True), ("two", True)]


async def test_only_the_answers_that_are_missing_are_asked_for(kind, serve, tmp_path):
    seen = []
    url = serve(provider(REPLIES[kind]("one"), seen))
    record = RecordSettings("record", str(tmp_path / "r.sqlite"))
    (expert,) = build_experts([settings(kind, url)], record)
    await expert.answer(question(), 1)
    answers = await expert.answer(question(), 2)
    await expert.close()
    assert [(a.index, a.recorded) for a in answers] == [(0, True), (1, False)]
    asked = [body.get("n") or body["generationConfig"]["candidateCount"] for _, body in seen]
    assert asked == [1, 1]


async def test_a_replay_asks_nobody(kind, serve, tmp_path):
    url = serve(provider(REPLIES[kind]("one")))
    path = str(tmp_path / "r.sqlite")
    (expert,) = build_experts([settings(kind, url)], RecordSettings("record", path))
    await expert.answer(question(), 1)
    await expert.close()
    (replay,) = build_experts([settings(kind, "http://127.0.0.1:9")], RecordSettings("replay", path))
    assert [a.text for a in await replay.answer(question(), 1)] == ["one"]
    with pytest.raises(ExpertError) as caught:
        await replay.answer(question(picture("green"), "another question"), 1)
    await replay.close()
    assert caught.value.failure is Failure.NOT_RECORDED


async def test_another_picture_model_or_temperature_is_another_question(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    seen = []
    url = serve(provider(openai_reply("x"), seen))
    record = RecordSettings("record", str(tmp_path / "r.sqlite"))
    asked = [
        (settings("openai", url), question()),
        (settings("openai", url), question(picture("blue"), "How many cubes?")),
        (settings("openai", url, model="other"), question()),
        (settings("openai", url, temperature=0.5), question()),
        (settings("openai", url, instruction=None), question()),
    ]
    for configured, q in asked:
        (expert,) = build_experts([configured], record)
        await expert.answer(q, 1)
        await expert.close()
    assert len(seen) == len(asked)


async def test_the_record_holds_no_key_and_is_private(kind, serve, tmp_path):
    url = serve(provider(REPLIES[kind]("one")))
    (expert,) = build_experts([settings(kind, url)], RecordSettings("record", str(tmp_path / "r.sqlite")))
    await expert.answer(question(), 1)
    await expert.close()
    files = list(tmp_path.iterdir())
    assert all(KEY.encode() not in path.read_bytes() for path in files)
    assert (tmp_path / "r.sqlite").stat().st_mode & 0o777 == 0o600
