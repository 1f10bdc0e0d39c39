"""The small decisions of the clients, without a network: retries, refusals, failures, replies, settings."""

import random
from datetime import date
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts import chat_server
from ekipl_rollout.experts.failures import to_expert_error
from ekipl_rollout.experts.features import Features
from ekipl_rollout.experts.reply import Choice, Reply
from ekipl_rollout.experts.retry import wait_before_retry
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.settings import EkiplSettings, ExpertSettings, RetrySettings
from ekipl_rollout.settings.models import TABLE, known_models

OWN = {"name": "gpt", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


# --- retry -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.floats(0, 60), st.floats(0, 60), st.integers(0, 10_000))
def test_a_wait_lies_between_nothing_and_its_exponential_bound(failed, first, longest, seed):
    policy = RetrySettings(attempts=20, first_wait_s=first, longest_wait_s=longest)
    wait = wait_before_retry(policy, ExpertError(Failure.SERVER_ERROR), failed, None, random.Random(seed))
    assert 0 <= wait <= min(longest, first * 2 ** (failed - 1))


def test_waits_are_spread_over_the_whole_interval():
    policy = RetrySettings(first_wait_s=1.0, attempts=9)
    rng = random.Random(0)
    waits = [wait_before_retry(policy, ExpertError(Failure.SERVER_ERROR), 3, None, rng) for _ in range(400)]
    assert min(waits) < 0.2 and max(waits) > 3.8 and 1.8 < sum(waits) / 400 < 2.2


@given(st.floats(0, 120), st.integers(0, 10_000))
def test_nobody_comes_back_before_the_time_that_the_provider_named(told, seed):
    error = ExpertError(Failure.RATE_LIMITED, retry_after_s=told)
    assert wait_before_retry(RetrySettings(), error, 1, None, random.Random(seed)) >= told


@pytest.mark.parametrize(
    ("error", "failed", "left"),
    [
        (ExpertError(Failure.SERVER_ERROR), 4, None),  # as many attempts as allowed
        (ExpertError(Failure.RATE_LIMITED, retry_after_s=120.5), 1, None),  # longer than we wait for anybody
        (ExpertError(Failure.RATE_LIMITED, retry_after_s=float("inf")), 1, None),
        (ExpertError(Failure.RATE_LIMITED, retry_after_s=30), 1, 29.0),  # nobody would listen any more
        (ExpertError(Failure.SERVER_ERROR), 1, 0.0),
        *[
            (ExpertError(failure), 1, None)
            for failure in Failure
            if failure.value
            in ("unauthorized", "not_found", "out_of_quota", "bad_request", "blocked", "over_budget", "resting", "late")
        ],
    ],
)
def test_what_cannot_help_is_not_tried(error, failed, left):
    assert wait_before_retry(RetrySettings(), error, failed, left, random.Random(0)) is None


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSALS = [  # words of real providers
    ("answers", "Multiple candidates is not enabled for this model", 1),
    ("answers", "Only one candidate can be specified", 1),
    ("answers", "Unable to submit request because candidateCount must be 1 but the entered value was 8.", 1),
    ("answers", "it has a candidateCount value of 8 but the supported range is from 1 (inclusive) to 5 (exclusive)", 4),
    ("answers", "n must be 1 when using greedy sampling, got 8.", 1),
    ("answers", "Invalid 'n': integer above maximum value. Expected a value <= 4, but got 8 instead.", 1),
    ("answers", "Unsupported parameter: 'n' is not supported with this model.", 1),
    ("logprobs", "Logprobs is not enabled for models/gemini-2.5-flash", None),
    ("logprobs", "You are not allowed to request logprobs from this model", None),
    ("token_ids", "Unrecognized request argument supplied: return_token_ids", None),
    ("top_p", "Unsupported parameter: 'top_p' is not supported with this model.", None),
    ("temperature", "Unsupported value: 'temperature' does not support 1.0 with this model.", None),
    (
        "token_param",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        None,
    ),
]


@pytest.mark.parametrize(("name", "words", "answers"), REFUSALS)
def test_a_refusal_is_understood(name, words, answers):
    features = Features(ExpertSettings(**OWN, logprobs=True, token_ids=True))
    sent = features.wish(8)
    assert features.learn(sent, f"BadRequestError: Error code: 400 - {words}")
    assert list(features.refused) == [name]
    now = features.wish(8)
    if answers is not None:
        assert now.answers == answers
    assert now != sent
    assert not features.learn(now, "something else is wrong")


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens (1976 in the messages, "
        "1024 in the completion). Please reduce the length of the messages or completion.",
        "max_tokens=9000 is larger than the context of 2048",
        "Invalid image: cannot identify image file",
        "User location is not supported for the API use.",
    ],
)
def test_a_refusal_of_the_prompt_teaches_nothing(words):
    features = Features(ExpertSettings(**OWN, logprobs=True))
    assert not features.learn(features.wish(8), words)
    assert not features.refused


def test_learning_always_comes_to_an_end():
    """A server that complains about everything, for ever."""
    features = Features(ExpertSettings(**OWN, logprobs=True, token_ids=True))
    complaint = "unsupported: logprobs return_token_ids top_p temperature max_tokens 'n'"
    rounds = 0
    while features.learn(features.wish(64), complaint):
        rounds += 1
        assert rounds < 20


# --- failures --------------------------------------------------------------------------------------------------------


def status_error(status: int, body: str = "", **headers: str) -> Exception:
    error = type("APIStatusError", (Exception,), {})("refused")
    error.status_code, error.body, error.response = status, body, SimpleNamespace(headers=headers)
    return error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_the_time_that_a_provider_names_is_read(headers, seconds):
    assert to_expert_error(status_error(429, **headers), Secret("k")).retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, "{'code': 'content_filter'}", Failure.BLOCKED),
        (400, "API key not valid. Please pass a valid API key.", Failure.UNAUTHORIZED),
        (400, "{'code': 'billing_hard_limit_reached'}", Failure.OUT_OF_QUOTA),
        (402, "", Failure.OUT_OF_QUOTA),
        (429, "{'code': 'insufficient_quota'}", Failure.OUT_OF_QUOTA),
        (429, "quotaId: GenerateRequestsPerDayPerProjectPerModel", Failure.OUT_OF_QUOTA),
        # Google words a limit per minute in the same way as an empty account
        (429, "You exceeded your current quota, please check your plan and billing details", Failure.RATE_LIMITED),
        (301, "", Failure.BAD_REQUEST),
        (418, "", Failure.BAD_REQUEST),
        (599, "", Failure.SERVER_ERROR),
    ],
)
def test_statuses_are_told_apart_by_what_the_provider_says(status, body, failure):
    assert to_expert_error(status_error(status, body), Secret("k")).failure is failure


# --- replies ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(0, 1000), st.floats(0, 10))
def test_shares_of_a_request_sum_to_the_whole(count, tokens, dollars):
    reply = Reply([Choice("x", AnswerStatus.FINISHED)] * count, 5, tokens, thought_tokens=tokens // 3)
    answers = reply.answers("gpt", count, dollars=dollars, seconds=1.0, retries=2)
    assert sum(a.output_tokens for a in answers) == tokens
    assert sum(a.thought_tokens for a in answers) == tokens // 3
    assert sum(a.dollars for a in answers) == pytest.approx(dollars)
    assert sum(a.retries for a in answers) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "finish_reason", "usage", "logprobs", "prompt_tokens", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_whatever_json_a_server_sends_it_is_answers_or_a_problem(value):
    from openai._models import construct_type
    from openai.types.chat import ChatCompletion

    reply = chat_server.read_reply(construct_type(type_=ChatCompletion, value=value))
    assert bool(reply.choices) != (reply.problem is not None)
    assert all(isinstance(choice.text, str) for choice in reply.choices)


# --- settings --------------------------------------------------------------------------------------------------------


def test_every_price_has_its_day_and_no_model_is_listed_twice():
    known = known_models()
    assert all(model.price.read and date.fromisoformat(model.price.read) for model in known.values())
    import yaml

    listed = [(entry["kind"], name) for entry in yaml.safe_load(TABLE.read_text()) for name in entry["models"]]
    assert len(listed) == len(set(listed)) == len(known)


def test_the_price_of_the_table_holds_unless_another_is_stated():
    def read(**changes) -> ExpertSettings:
        entry = {"name": "a", "kind": "openai", "model": "gpt-4o-2024-08-06", "api_key_env": "K", **changes}
        return EkiplSettings.from_config({"experts": [entry]}, check=False).experts[0]

    listed, stated = read(), read(dollars_per_million_output=2.0)
    assert (listed.price.input, listed.price.output, listed.reserved_picture_tokens) == (2.5, 10.0, 1445)
    assert (stated.price.input, stated.price.output) == (0.0, 2.0)
    assert read(prices_as_of="2026-11-01").price.of(10**6, 10**6) == 0.0  # stated: it is free
    assert read(model="brand-new").price is None
    assert ExpertSettings(**OWN).price.of(10**6, 10**6) == 0.0


def test_a_shutdown_is_announced_ninety_days_ahead_and_afterwards():
    plain = ExpertSettings(name="a", kind="openai", model="gpt-4o-2024-08-06", api_key_env="K")
    expert = plain.with_listed_price()
    assert not expert.warnings(date(2026, 10, 1))
    (near,) = expert.warnings(date(2026, 12, 1))
    assert "2027-01-14 (in 44 days)" in near and "gpt-6-luna" in near
    assert any("that is past" in text for text in expert.warnings(date(2027, 2, 1)))


def test_a_price_that_nobody_knows_or_that_is_old_is_announced():
    (unknown,) = ExpertSettings(name="a", kind="openai", model="brand-new", api_key_env="K").warnings()
    assert "no known price" in unknown
    prices = {"dollars_per_million_input": 1.0, "dollars_per_million_output": 1.0, "prices_as_of": "2026-01-01"}
    (old,) = ExpertSettings(**OWN, **prices).warnings(date(2026, 11, 1))
    assert "2026-01-01" in old


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"token_param": "max"}, "token_param='max' is not known"),
        ({"max_tokens": 0}, "max_tokens=0 must be more than 0"),
        ({"request_timeout_s": -1}, "request_timeout_s=-1"),
        ({"retry": RetrySettings(attempts=0)}, "retry.attempts=0 must be 1 or more"),
        ({"dollars_per_million_input": -1.0}, "must be 0 or more"),
        ({"prices_as_of": "yesterday"}, "is no day"),
        ({"extra": {"n": 3}}, "extra.n cannot be set there"),
        ({"api_version": "2024-10-21", "base_url": None, "api_key_env": "HOME"}, "is for Azure"),
        ({"project": "p"}, "is for kind gemini"),
        ({"api_key_env": "HOME", "api_key_file": "/x"}, "Keep one"),
        ({"api_key_file": "/nowhere/key"}, "cannot be read"),
        ({"base_url": "http://example.com/v1", "api_key_env": "HOME"}, "unencrypted"),
        ({"base_url": "http://127.0.0.1/v1?key=abc"}, "carries a user, password or query"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(changes, says):
    assert any(says in problem for problem in ExpertSettings(**{**OWN, **changes}).problems())


def test_nested_settings_are_read_from_a_config():
    from omegaconf import OmegaConf

    entry = {
        **OWN,
        "retry": {"attempts": 7},
        "extra": {"thinking_config": {"thinking_budget": 0}, "stop": ["a"]},
        "examples": [{"question": "q", "answer": "a", "pictures": []}],
    }
    (expert,) = EkiplSettings.from_config(OmegaConf.create({"experts": [entry]})).experts
    assert expert.retry.attempts == 7
    assert expert.extra == {"thinking_config": {"thinking_budget": 0}, "stop": ["a"]} and type(expert.extra) is dict
    assert expert.examples[0].content == {"question": "q", "answer": "a", "pictures": []}
