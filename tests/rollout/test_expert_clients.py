"""How the clients ask: against real servers, by what went over the wire."""

import asyncio
import base64
import json
import time
from dataclasses import replace

import pytest

from ekipl_rollout.answer import AnswerStatus, Message, Question
from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.experts import pictures
from ekipl_rollout.settings import ExampleSettings, RetrySettings
from tests.rollout.expert_helpers import KEY, KINDS, CountingBounds, ask, client, expert_settings, picture, question
from tests.rollout.fault_server import FaultServer

PRICES = {"dollars_per_million_input": 10.0, "dollars_per_million_output": 100.0}


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# --- many answers, learned -------------------------------------------------------------------------------------------


async def test_n_answers_come_in_one_request_and_are_all_different(kind, server):
    answers = await ask(expert_settings(kind, server.url, f"healthy@1{kind}"), 8)
    assert server.hits[f"healthy@1{kind}"] == 1
    assert len({answer.text for answer in answers}) == 8
    assert [answer.index for answer in answers] == list(range(8))


@pytest.mark.parametrize("fault", ["several-refused", "several-refused-silently", "one-answer-each"])
async def test_one_answer_a_request_is_learned_once_and_remembered(fault, kind, server):
    model = f"{fault}@remembered-{kind}"
    expert = client(expert_settings(kind, server.url, model))
    first = await expert.answer(question("a"), 4)
    learned_after = server.hits[model]
    second = await expert.answer(question("b"), 4)
    await expert.close()
    assert len({a.text for a in (*first, *second)}) == 8
    assert learned_after in (4, 5) and server.hits[model] - learned_after == 4
    assert "answers" in expert.features.refused


async def test_many_questions_at_once_learn_without_losing_an_answer(kind, server):
    expert = client(expert_settings(kind, server.url, f"several-refused@many-{kind}"))
    got = await asyncio.gather(*(expert.answer(question(f"q{i}"), 4) for i in range(12)))
    await expert.close()
    assert all(len(answers) == 4 for answers in got)
    assert all(f"q{i} " in answer.text for i, answers in enumerate(got) for answer in answers)


async def test_single_requests_that_fail_cost_only_their_own_answers(kind, server):
    """Two of four single requests fail for good: two answers come."""
    expert = client(expert_settings(kind, server.url, f"m@partly-{kind}", retry=RetrySettings(attempts=1)))
    expert.features.only_one_answer("known from before")
    send, turns = expert._send, iter([False, True, False, True])

    async def every_second_one(payload, wish):
        if next(turns):
            raise ConnectionResetError("gone")
        return await send(payload, wish)

    expert._send = every_second_one
    answers = await expert.answer(question("a"), 4)
    await expert.close()
    assert [answer.index for answer in answers] == [0, 1]
    assert expert.stats.failed == {Failure.UNREACHABLE: 2}


async def test_refused_parameters_are_left_out_and_remembered(server):
    model = "parameters-refused@remembered"
    expert = client(expert_settings("openai", server.url, model))
    await expert.answer(question("a"), 2)
    asked = server.hits[model]
    await expert.answer(question("b"), 2)
    await expert.close()
    body = server.calls[model].body
    assert (asked, server.hits[model]) == (3, 4)
    assert ("max_completion_tokens" in body, "max_tokens" in body, "top_p" in body) == (True, False, False)


async def test_a_value_that_was_chosen_is_never_dropped(server):
    with pytest.raises(ExpertError) as caught:
        await ask(expert_settings("openai", server.url, "parameters-refused@chosen", top_p=0.9), 1)
    assert caught.value.failure is Failure.BAD_REQUEST
    assert "top_p" in caught.value.message


async def test_a_token_parameter_that_was_chosen_is_sent(server):
    for name in ("max_tokens", "max_completion_tokens"):
        await ask(expert_settings("openai", server.url, f"m@{name}", token_param=name, max_tokens=77), 1)
        assert server.calls[f"m@{name}"].body[name] == 77


# --- log-probabilities -----------------------------------------------------------------------------------------------


async def test_log_probabilities_come_when_asked_for(kind, server):
    wanted = await ask(expert_settings(kind, server.url, f"m@wanted-{kind}", logprobs=True), 2)
    unwanted = await ask(expert_settings(kind, server.url, f"m@unwanted-{kind}"), 2)
    assert [answer.logprobs for answer in wanted] == [[-0.5], [-0.5]]
    assert [answer.logprobs for answer in unwanted] == [None, None]


async def test_a_refusal_of_log_probabilities_is_remembered(kind, server):
    model = f"logprobs-refused@remembered-{kind}"
    expert = client(expert_settings(kind, server.url, model, logprobs=True))
    answers = [*await expert.answer(question("a"), 2), *await expert.answer(question("b"), 2)]
    await expert.close()
    assert server.hits[model] == 3
    assert [answer.logprobs for answer in answers] == [None] * 4


async def test_token_ids_are_asked_for_as_vllm_understands(server):
    answers = await ask(expert_settings("openai", server.url, "m@ids", token_ids=True), 2)
    assert [answer.token_ids for answer in answers] == [[7], [8]]
    assert server.calls["m@ids"].body["return_token_ids"] is True


# --- prompts and pictures --------------------------------------------------------------------------------------------


def sent_parts(call) -> list:
    """What the last turn showed, as text and bytes."""
    if call.gemini:
        parts = call.body["contents"][-1]["parts"]
        return [p["text"] if "text" in p else base64.b64decode(p["inlineData"]["data"]) for p in parts]
    parts = call.body["messages"][-1]["content"]
    return [p["text"] if p["type"] == "text" else base64.b64decode(p["image_url"]["url"].split(",")[1]) for p in parts]


async def test_several_pictures_go_out_as_they_are_in_their_order(kind, server):
    shown = [picture("red"), picture("blue", kind="JPEG"), picture("green", kind="WEBP")]
    parts = ("before", shown[0], shown[1], "between", shown[2], "after")
    await ask(expert_settings(kind, server.url, f"m@pics{kind}", instruction="Use tags."), 1, question(*parts))
    assert sent_parts(server.calls[f"m@pics{kind}"]) == [*parts, "\nUse tags."]


async def test_a_picture_is_encoded_once_whoever_is_asked_and_however_often(server, monkeypatch):
    encoded, real = [], base64.b64encode
    monkeypatch.setattr(pictures.base64, "b64encode", lambda data: encoded.append(len(data)) or real(data))
    asked = question(picture(), "How many?")
    experts = [client(expert_settings(kind, server.url, f"several-refused@once-{kind}")) for kind in KINDS]
    await asyncio.gather(*(expert.answer(asked, 8) for expert in experts))
    for expert in experts:
        await expert.close()
    assert sum(server.hits[f"several-refused@once-{kind}"] for kind in KINDS) >= 16
    assert len(encoded) == 1


def bomb() -> bytes:
    """A PNG of 70 bytes whose header claims 50,000 x 50,000 pixels."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no readable PNG"),
        (b"not a picture", "no readable PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 40, "no readable PNG"),
        (bomb(), "decompression bomb"),
        (picture(size=(300, 300)), "300 x 300 pixels is more than max_pixels=10000"),
    ],
    ids=["nothing", "text", "broken", "bomb", "large"],
)
async def test_a_picture_that_cannot_be_sent_fails_clearly_and_nobody_is_asked(kind, server, data, says):
    bounds, model = CountingBounds(), f"m@bad-{kind}"
    with pytest.raises(ExpertError, match=says) as caught:
        await ask(expert_settings(kind, server.url, model, max_pixels=10_000), 2, question(data, "?"), bounds)
    assert caught.value.failure is Failure.BAD_REQUEST
    assert (server.hits[model], bounds.admitted) == (0, [])


async def test_examples_are_shown_as_earlier_turns_and_the_instruction_ends_the_question(kind, server, tmp_path):
    (tmp_path / "e.png").write_bytes(picture("blue"))
    example = ExampleSettings("How many?", "<answer>1</answer>", (str(tmp_path / "e.png"),))
    asked = Question("q", (Message("system", ("Be brief.",)), Message("user", (picture("red"), "And here?"))))
    model = f"m@shots-{kind}"
    await ask(expert_settings(kind, server.url, model, examples=(example,), instruction="Tags!"), 1, asked)
    body = server.calls[model].body
    turns = body["contents"] if kind == "gemini" else body["messages"][1:]
    assert [turn["role"] for turn in turns] == ["user", "model" if kind == "gemini" else "assistant", "user"]
    assert sent_parts(server.calls[model]) == [picture("red"), "And here?", "\nTags!"]
    system = body["systemInstruction"]["parts"][0] if kind == "gemini" else body["messages"][0]["content"][0]
    assert system["text"] == "Be brief."
    assert json.dumps(turns).count("Tags!") == 1


def test_a_picture_of_an_example_is_looked_at_when_the_expert_is_built(server, tmp_path):
    (tmp_path / "e.png").write_bytes(bomb())
    example = ExampleSettings("q", "a", (str(tmp_path / "e.png"),))
    with pytest.raises(SettingsError, match="examples: .* decompression bomb"):
        client(expert_settings("openai", server.url, examples=(example,)))


async def test_an_instruction_can_be_left_out(kind, server):
    await ask(expert_settings(kind, server.url, f"m@bare-{kind}", instruction=None), 1, question("Only this"))
    assert sent_parts(server.calls[f"m@bare-{kind}"]) == ["Only this"]


async def test_a_prompt_that_is_no_unicode_is_still_sent(kind, server):
    answers = await ask(
        expert_settings(kind, server.url, f"m@odd-{kind}", instruction=None), 1, question("a\ud83d\x00b")
    )
    assert sent_parts(server.calls[f"m@odd-{kind}"]) == ["a\ud83d\x00b"]
    assert len(answers) == 1


async def test_fields_of_the_provider_are_passed_on(server):
    await ask(expert_settings("openai", server.url, "m@extra", extra={"reasoning_effort": "low"}), 1)
    thinking = {"thinking_config": {"thinking_budget": 0}}
    await ask(expert_settings("gemini", server.url, "m@extra-g", extra=thinking), 1)
    assert server.calls["m@extra"].body["reasoning_effort"] == "low"
    assert list(server.calls["m@extra-g"].body["generationConfig"]["thinkingConfig"].values()) == [0]


def test_a_field_that_gemini_does_not_have_is_refused_when_the_expert_is_built(server):
    with pytest.raises(SettingsError, match="nonsense"):
        client(expert_settings("gemini", server.url, extra={"nonsense": 1}))


# --- money and bounds ------------------------------------------------------------------------------------------------


async def test_hidden_reasoning_is_counted_and_billed_as_output(kind, server):
    answers = await ask(expert_settings(kind, server.url, f"m@think-{kind}", **PRICES), 3)
    assert [(a.output_tokens, a.thought_tokens) for a in answers] == [(10, 4)] * 3
    assert sum(a.dollars for a in answers) == pytest.approx((40 * 10 + 30 * 100) / 1e6)


async def test_each_request_is_admitted_with_the_most_it_can_cost_and_settled_with_what_it_did(kind, server):
    bounds = CountingBounds()
    settings = expert_settings(kind, server.url, f"m@admit-{kind}", max_tokens=500, picture_tokens=700, **PRICES)
    await ask(settings, 4, question(picture(), picture("blue"), "How many?", step=7), bounds)
    (permit,), (settled,) = bounds.admitted, bounds.settled.values()
    text = len("How many?" + "\n" + settings.instruction)
    assert permit.tokens == 2 * 700 + text + 32 + 4 * 500
    assert permit.dollars == pytest.approx(((2 * 700 + text + 32) * 10 + 4 * 500 * 100) / 1e6)
    assert settled == (80, pytest.approx((40 * 10 + 40 * 100) / 1e6), None)
    assert bounds.steps == [7]


@pytest.mark.parametrize(
    ("fault", "in_full", "failure"),
    [
        ("no-usage", True, None),
        ("reset-in-body", True, Failure.UNREACHABLE),
        ("half-json", True, Failure.BAD_REPLY),
        ("drip", True, Failure.TIMED_OUT),
        ("408", True, Failure.SERVER_ERROR),
        ("503", False, Failure.SERVER_ERROR),
        ("429-long", False, Failure.RATE_LIMITED),
        ("401", False, Failure.UNAUTHORIZED),
    ],
)
async def test_what_may_have_been_billed_is_settled_in_full(kind, server, fault, in_full, failure):
    bounds = CountingBounds()
    limits = {"request_timeout_s": 0.3 if fault == "drip" else 10.0, "retry": RetrySettings(attempts=1)}
    settings = expert_settings(kind, server.url, f"{fault}@settle-{kind}", **limits, **PRICES)
    if failure is None:
        await ask(settings, 1, bounds=bounds)
    else:
        with pytest.raises(ExpertError):
            await ask(settings, 1, bounds=bounds)
    (permit,), ((tokens, dollars, error),) = bounds.admitted, bounds.settled.values()
    assert (tokens, dollars) == ((permit.tokens, permit.dollars) if in_full else (0, 0.0))
    assert (error and error.failure) is failure


async def test_a_blocked_prompt_is_billed_for_what_the_provider_read(server):
    bounds = CountingBounds()
    with pytest.raises(ExpertError):
        await ask(expert_settings("gemini", server.url, "filtered-prompt@billed", **PRICES), 2, bounds=bounds)
    ((tokens, dollars, error),) = bounds.settled.values()
    assert (tokens, dollars, error.failure) == (40, pytest.approx(40 * 10 / 1e6), Failure.BLOCKED)


async def test_a_refused_connection_costs_nothing(kind):
    bounds = CountingBounds()
    with pytest.raises(ExpertError):
        await ask(expert_settings(kind, "http://127.0.0.1:9", **PRICES), 1, bounds=bounds)
    assert [(tokens, error.failure) for tokens, _, error in bounds.settled.values()] == [(0, Failure.UNREACHABLE)] * 2


async def test_a_request_that_is_cut_off_is_settled_once_and_in_full(kind, server):
    bounds = CountingBounds()
    expert = client(expert_settings(kind, server.url, f"black-hole@cut-{kind}", **PRICES), bounds)
    asking = asyncio.ensure_future(expert.answer(question("a"), 2))
    while not server.hits[f"black-hole@cut-{kind}"]:
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await expert.close()
    (permit,), ((tokens, dollars, _),) = bounds.admitted, bounds.settled.values()
    assert (tokens, dollars) == (permit.tokens, permit.dollars)


@pytest.mark.parametrize("failure", [Failure.OVER_BUDGET, Failure.RESTING])
async def test_what_the_bounds_refuse_is_not_sent_and_not_tried_again(kind, server, failure):
    bounds = CountingBounds(refusal=ExpertError(failure, "no"))
    with pytest.raises(ExpertError) as caught:
        await ask(expert_settings(kind, server.url, f"m@refused-{kind}"), 2, bounds=bounds)
    assert caught.value.failure is failure
    assert server.hits[f"m@refused-{kind}"] == 0


# --- time ------------------------------------------------------------------------------------------------------------


async def test_a_wait_that_would_end_after_the_deadline_is_not_begun(kind, server):
    patient = RetrySettings(longest_retry_after_s=10_000)
    settings = expert_settings(kind, server.url, f"429-long@deadline-{kind}", retry=patient)
    with pytest.raises(ExpertError) as caught:
        await ask(settings, 1, question("a", deadline=time.monotonic() + 30))
    assert (caught.value.failure, caught.value.retry_after_s) == (Failure.RATE_LIMITED, 600)
    assert server.hits[settings.model] == 1


async def test_nothing_is_sent_after_the_deadline(kind, server):
    bounds, settings = CountingBounds(), expert_settings(kind, server.url, f"m@past-{kind}")
    with pytest.raises(ExpertError) as caught:
        await ask(settings, 1, question("a", deadline=time.monotonic() - 1), bounds)
    assert caught.value.failure is Failure.LATE
    assert [tokens for tokens, _, _ in bounds.settled.values()] == [0]
    assert server.hits[settings.model] == 0


async def test_a_drip_ends_at_the_deadline_if_that_is_sooner(kind, server):
    settings, started = expert_settings(kind, server.url, f"drip@d-{kind}"), time.monotonic()
    with pytest.raises(ExpertError) as caught:
        await ask(settings, 1, question("a", deadline=started + 1.0))
    assert caught.value.failure is Failure.TIMED_OUT
    assert time.monotonic() - started < settings.request_timeout_s / 10


async def test_no_more_requests_are_out_than_allowed(kind):
    with FaultServer(latency_s=0.03) as slow:
        expert = client(expert_settings(kind, slow.url, max_in_flight=3))
        asking = asyncio.gather(*(expert.answer(question(f"q{i}"), 1) for i in range(12)))
        most = 0
        while not asking.done():
            most = max(most, slow.connections)
            await asyncio.sleep(0.005)
        await asking
        await expert.close()
    assert 1 <= most <= 3


async def test_a_closed_client_leaves_no_socket_and_no_task(kind):
    with FaultServer() as local:
        before = asyncio.all_tasks()
        await ask(expert_settings(kind, local.url), 2)
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before
        assert local.connections == 0


def test_a_client_stays_in_the_loop_that_it_was_used_in_first(kind, server):
    expert = client(expert_settings(kind, server.url))
    asyncio.run(expert.answer(question("a"), 1))
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(expert.answer(question("a"), 1))


# --- addresses -------------------------------------------------------------------------------------------------------


async def test_azures_dated_address_has_deployment_version_and_key_where_azure_wants_them(server):
    settings = expert_settings("openai", server.url, "my-deployment", api_version="2024-10-21")
    answers = await ask(replace(settings, base_url=server.url), 2)
    call = server.calls["my-deployment"]
    assert len(answers) == 2
    assert call.target == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert call.headers["api-key"] == KEY
    assert KEY not in call.headers.get("authorization", "")


async def test_vertex_is_asked_with_default_credentials(server, tmp_path, monkeypatch):
    """A service account whose token comes from a server on loopback: the real google-auth, no real Google."""
    from tests.rollout.vertex_account import service_account

    with service_account(tmp_path) as account:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account.path))
        settings = expert_settings("gemini", server.url, "m@vertex", api_key_env=None, project="my-project")
        answers = await ask(replace(settings, location="europe-west4"), 2)
    call = server.calls["m@vertex"]
    assert len(answers) == 2
    assert (
        call.target
        == "/v1/projects/my-project/locations/europe-west4/publishers/google/models/m@vertex:generateContent"
    )
    assert call.headers["authorization"] == f"Bearer {account.token}"
    assert "x-goog-api-key" not in call.headers


def test_vertex_without_credentials_says_what_to_do(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    with pytest.raises(SettingsError, match="gcloud auth application-default login"):
        client(expert_settings("gemini", server.url, api_key_env=None, project="p"))


async def test_the_environment_of_the_sdks_does_not_move_a_request(kind, server, monkeypatch):
    elsewhere = {"OPENAI_BASE_URL": "x", "GOOGLE_GEMINI_BASE_URL": "x", "GOOGLE_VERTEX_BASE_URL": "x"}
    for name in elsewhere:
        monkeypatch.setenv(name, "http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v9")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-secret: 1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answers = await ask(expert_settings(kind, server.url, f"m@env-{kind}"), 1)
    call = server.calls[f"m@env-{kind}"]
    assert answers[0].status is AnswerStatus.FINISHED
    assert "x-secret" not in call.headers
    assert call.target.startswith("/v1beta/" if kind == "gemini" else "/v1/")
