"""A canary key is looked for wherever it could come out."""

import copy
import json
import logging
import os
import pickle
import traceback

import pytest

from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.settings import EkiplSettings, ExpertSettings
from tests.rollout.expert_helpers import KEY, KINDS, ask, become, client, expert_settings, question
from tests.rollout.fault_server import FaultServer
from tests.rollout.faults import FAULTS

PASSING = [name for name in FAULTS if name not in ("drip", "black-hole", "half-header", "429-date")]

pytestmark = [pytest.mark.usefixtures("key"), pytest.mark.filterwarnings("ignore:BRAND_NEW")]


def everything_about(error: BaseException) -> str:
    """What a log, a debugger, a crash report or another process could show of an error."""
    links, link = [], error
    while link is not None:
        links.append(link)
        link = link.__cause__ or link.__context__
    seen = [repr(e) + str(e) + repr(vars(e)) + repr(e.args) for e in links]
    seen.append("".join(traceback.format_exception(error)))
    seen.append(repr(pickle.dumps(error)) + repr(copy.deepcopy(error)))
    return " ".join(seen)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_failure_tells_the_key_and_no_sdk_exception_gets_out(kind, server, caplog):
    """The server of these tests echoes the key in its error messages."""
    caplog.set_level(logging.DEBUG)
    failed, expert = 0, client(expert_settings(kind, server.url, logprobs=True))
    for fault in PASSING:
        try:
            answers = await become(expert, f"{fault}@secret-{kind}").answer(question("q"), 2)
            assert KEY not in repr(answers)
        except ExpertError as error:
            failed += 1
            assert KEY not in everything_about(error), fault
            assert error.__cause__ is None and error.__context__ is None, fault
            again = pickle.loads(pickle.dumps(error))
            assert (again.failure, again.message, again.status) == (error.failure, error.message, error.status)
    await expert.close()
    assert failed > 25
    assert caplog.records and KEY not in caplog.text
    assert KEY not in " ".join(repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_really_is_sent_and_only_where_it_belongs(kind, server):
    await ask(expert_settings(kind, server.url, f"m@where-{kind}"), 1)
    call = server.calls[f"m@where-{kind}"]
    carriers = [name for name, value in call.headers.items() if KEY in value]
    assert carriers == (["x-goog-api-key"] if kind == "gemini" else ["authorization"])
    assert KEY not in call.target and KEY not in json.dumps(call.body)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_shows_no_key_and_cannot_be_pickled(kind, server):
    expert = client(expert_settings(kind, server.url))
    shown = repr(expert) + repr(expert.settings) + repr(expert.stats) + repr(expert.features.__dict__)
    await expert.close()
    assert KEY not in shown
    with pytest.raises(TypeError):
        pickle.dumps(expert._secret)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(kind, status, server, monkeypatch):
    with FaultServer() as elsewhere:
        where = {"location": f"{elsewhere.url}/v1/chat/completions"}
        from tests.rollout.faults import refuse

        monkeypatch.setitem(FAULTS, "moved", refuse(status, headers=where))
        with pytest.raises(ExpertError) as caught:
            await ask(expert_settings(kind, server.url, f"moved@{kind}-{status}"), 1)
        assert (caught.value.failure, caught.value.status) == (Failure.BAD_REQUEST, status)
        assert "redirect" in caught.value.message
        assert not elsewhere.hits


async def test_vertexs_token_is_not_told_either(server, tmp_path, monkeypatch, caplog):
    from tests.rollout.vertex_account import TOKEN, service_account

    caplog.set_level(logging.DEBUG)
    with service_account(tmp_path) as account:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account.path))
        for fault in ("401", "500", "half-json", "reset-in-body"):
            with pytest.raises(ExpertError) as caught:
                settings = expert_settings("gemini", server.url, f"{fault}@vertex", api_key_env=None, project="p")
                await ask(settings, 1)
            assert TOKEN not in everything_about(caught.value)
    assert account.asked and TOKEN not in caplog.text


async def test_credentials_that_google_refuses_are_an_unauthorized_expert(server, tmp_path, monkeypatch):
    from tests.rollout.vertex_account import TOKEN, service_account

    with service_account(tmp_path, revoked=True) as account:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account.path))
        with pytest.raises(ExpertError) as caught:
            await ask(expert_settings("gemini", server.url, "m@revoked", api_key_env=None, project="p"), 1)
    assert caught.value.failure is Failure.UNAUTHORIZED and not caught.value.may_be_billed
    assert TOKEN not in everything_about(caught.value)
    assert not server.hits["m@revoked"]


def test_ordinary_words_do_not_look_like_keys():
    for words in ("task-specific-instruction-tuned-model", "risk-analysis-of-everything-v2", "the bearer of good news"):
        expert = ExpertSettings(
            "a", "openai", words.replace(" ", "-"), base_url="http://127.0.0.1:1/v1", instruction=words
        )
        assert not expert.problems()


# --- where a key may come from ---------------------------------------------------------------------------------------


def key_file(folder, text: str = KEY, mode: int = 0o600):
    path = folder / "key"
    path.write_text(text)
    os.chmod(path, mode)
    return path


async def test_a_key_is_read_from_a_private_file(server, tmp_path):
    path = key_file(tmp_path, f"{KEY}\n")
    settings = expert_settings("openai", server.url, "m@file", api_key_env=None, api_key_file=str(path))
    assert not settings.problems()
    await ask(settings, 1)
    assert server.calls["m@file"].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_key_file_that_others_can_read_is_refused(tmp_path, mode):
    path = str(key_file(tmp_path, mode=mode))
    problems = expert_settings("openai", "http://127.0.0.1:1", api_key_env=None, api_key_file=path).problems()
    assert any("chmod 600" in problem for problem in problems)
    with pytest.raises(SettingsError, match="chmod 600"):
        Secret.from_file(path)


@pytest.mark.parametrize("text", ["", " \n", "two words", "schlüssel"])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path, text):
    with pytest.raises(SettingsError) as caught:
        Secret.from_file(str(key_file(tmp_path, text)))
    assert not text.strip() or text not in str(caught.value)


@pytest.mark.parametrize(
    "misplaced",
    [
        {"api_key_env": "sk-canary-0123456789"},
        {"model": "sk-canary-0123456789"},
        {"extra": {"headers": {"authorization": "Bearer sk-canary-0123456789"}}},
        {"base_url": "https://x.com/v1?key=AIzaCanary0123456789"},
        {"instruction": "my key is ya29.canary0123456789"},
    ],
)
def test_a_key_in_the_config_is_refused_without_repeating_it(misplaced):
    expert = {"name": "a", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", **misplaced}
    with pytest.raises(SettingsError) as caught:
        EkiplSettings.from_config({"experts": [expert]})
    assert "looks like a key" in str(caught.value)
    assert "anary" not in str(caught.value)


def test_a_setting_called_api_key_does_not_exist_and_its_value_is_not_repeated():
    expert = {"name": "a", "kind": "openai", "model": "m", "api_key": KEY}
    with pytest.raises(SettingsError) as caught:
        EkiplSettings.from_config({"experts": [expert]})
    assert "api_key is no setting" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_goes_over_http_to_this_machine_only(kind):
    far = ExpertSettings("a", kind, "m", base_url="http://10.0.0.1:8000/v1", api_key_env="TEST_KEY")
    near = ExpertSettings("a", kind, "m", base_url="http://localhost:8000/v1", api_key_env="TEST_KEY")
    assert any("unencrypted" in problem for problem in far.problems())
    assert not near.problems()
    with pytest.raises(SettingsError, match="unencrypted"):
        client(far)


@pytest.mark.parametrize("text", [f"x {KEY} y" * 400, f"Bearer {KEY}", f'{{"authorization": "{KEY}"}}', KEY * 50])
def test_a_key_is_taken_out_of_any_text(text, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    redacted = Secret.from_env("TEST_KEY").redact(text)
    assert KEY not in redacted and len(redacted) <= 300


def test_a_providers_words_are_one_line_that_no_terminal_and_no_log_obeys():
    said = Secret("sk-x").redact("no\r\nERROR all is lost\x1b[2J\x1b]0;title\x07 \u202eabc \ud83d")
    assert said == "no ERROR all is lost\\x1b[2J\\x1b]0;title\\x07 \\u202eabc \\ud83d"


async def test_text_that_spells_special_tokens_or_no_unicode_stays_text(server):
    for kind in KINDS:
        (special,) = await ask(expert_settings(kind, server.url, f"special-tokens@t{kind}"), 1, question("q"))
        (odd,) = await ask(expert_settings(kind, server.url, f"lone-surrogates@t{kind}"), 1, question("q"))
        assert "<|im_start|>user" in special.text  # encoding splits it: tokens.py
        assert "\ud83d" in odd.text and "\x00" in odd.text
        assert pickle.loads(pickle.dumps(odd)) == odd and json.loads(json.dumps(odd.text)) == odd.text
