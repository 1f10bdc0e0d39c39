"""How the clients ask, against real servers: what they learn of a model, for how long, and at which address."""

import asyncio
import time
from dataclasses import replace

import pytest

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.settings import RetrySettings
from tests.rollout.expert_helpers import KEY, CountingBounds, ask, client, expert_settings, question
from tests.rollout.fault_server import FaultServer

pytestmark = pytest.mark.usefixtures("key")


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
