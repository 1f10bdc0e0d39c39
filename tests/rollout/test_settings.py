import pytest

from ekipl_rollout.errors import Lacking, SettingsError
from ekipl_rollout.settings import EkiplSettings
from tests.rollout import record_helpers

EXPERT = {"name": "gpt", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


def problems(**block):
    with pytest.raises(SettingsError) as caught:
        EkiplSettings.from_config(block)
    return list(caught.value.problems)


def test_the_defaults_are_the_papers():
    settings = EkiplSettings.from_config({})
    assert settings.num_answers == 8
    assert settings.select.ties == "policy_first"
    assert settings.advantage.is_papers


def test_all_problems_are_reported_at_once():
    found = problems(num_answers=0, too_long="maybe", select={"ties": "coin"}, experts=[EXPERT, EXPERT])
    assert len(found) == 4


def test_a_misspelled_key_is_answered_with_the_right_one():
    assert problems(num_anwsers=4) == ["ekipl.num_anwsers is no setting. Did you mean num_answers?"]


@pytest.mark.parametrize(
    ("key", "value"), [("num_answers", "8"), ("num_answers", True), ("expert_timeout_s", None), ("keep_groups", 1)]
)
def test_a_wrong_type_is_refused(key, value):
    assert f"ekipl.{key}" in problems(**{key: value})[0]


def test_a_missing_key_names_the_variable_and_what_to_do(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    (found,) = problems(experts=[{**EXPERT, "base_url": "https://api.example.com/v1", "api_key_env": "MY_KEY"}])
    assert "MY_KEY" in found
    assert "export" in found


def test_an_sdk_that_is_not_installed_is_named_before_a_worker_needs_it(monkeypatch):
    monkeypatch.setattr(
        "ekipl_rollout.settings.expert_problems.SDKS", {"openai": ("openai", "no_sdk.inside", "no_sdk")}
    )
    (found,) = problems(experts=[EXPERT])
    assert isinstance(found, Lacking)
    assert "no_sdk.inside, no_sdk not installed" in found and "pip install" in found


def test_a_key_is_not_sent_unencrypted_over_a_network(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-1234567")
    (found,) = problems(experts=[{**EXPERT, "base_url": "http://10.0.0.5/v1", "api_key_env": "MY_KEY"}])
    assert "https://" in found
    assert "sk-1234567" not in found


def test_a_password_in_the_address_is_refused_and_not_repeated():
    (found,) = problems(experts=[{**EXPERT, "base_url": "http://me:hunter2@127.0.0.1/v1"}])
    assert "hunter2" not in found


def test_an_expert_may_not_be_called_policy():
    assert "policy" in problems(experts=[{**EXPERT, "name": "policy"}])[0]


def test_a_replay_needs_a_record(tmp_path):
    assert "does not exist" in problems(record={"mode": "replay", "path": str(tmp_path / "none.sqlite")})[0]


def replay_of(path, **changes):
    return {"record": {"mode": "replay", "path": str(path)}, "experts": [{**EXPERT, **changes}]}


def test_a_replay_of_other_experts_is_refused_and_says_whose_answers_there_are(tmp_path):
    path = record_helpers.fill(tmp_path / "records.sqlite")
    (found,) = problems(**replay_of(path, model="another"))
    assert "openai:m" in found
    assert "openai:another" in found
    (found,) = problems(**replay_of(path, max_tokens=7))
    assert "max_tokens=7" in found


def test_a_replay_of_the_same_experts_is_fine_whatever_they_are_called_now(tmp_path):
    path = record_helpers.fill(tmp_path / "records.sqlite")
    EkiplSettings.from_config(replay_of(path, name="teacher", base_url="http://127.0.0.1:2/v1"))


def test_a_replay_may_lack_one_expert_of_several(tmp_path):
    path = record_helpers.fill(tmp_path / "records.sqlite")
    block = replay_of(path)
    block["experts"].append({**EXPERT, "name": "failed", "model": "another"})
    EkiplSettings.from_config(block)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"ask": {"when": "sometimes"}}, "ekipl.ask.when='sometimes' is not known. Choose from always"),
        ({"ask": {"tasks": {"geomath": "sometimes"}}}, "ekipl.ask.tasks.geomath='sometimes' is not known"),
        ({"ask": {"late": "maybe"}}, "Choose from drop, keep_for_next"),
        ({"ask": {"wait_s": -1}}, "must be 0 or more seconds"),
        ({"ask": {"wait_s": "5"}}, "must be of type float | None"),
        ({"ask": {"max_late": -1}}, "must be 0 or more"),
        ({"ask": {"ahead": True, "when": "unsolved"}}, "Set ahead=false"),
        ({"ask": {"when": "fraction", "fraction": {"start": 2.0}}}, "are shares, from 0 to 1"),
        ({"ask": {"when": "fraction", "fraction": {"schedule": "linear"}}}, "needs its length"),
        ({"ask": {"tasks": {"geomath": "fraction"}, "fraction": {"schedule": "sine"}}}, "Choose from constant, linear"),
        ({"ask": {"late": "keep_for_next"}, "record": {"mode": "off"}}, "Set record.mode=record"),
        ({"bounds": {"max_dollars": -1}}, "ekipl.bounds.max_dollars=-1 must be 0 or more"),
        ({"bounds": {"burst_s": 0}}, "at most 60 seconds"),
        ({"bounds": {"failures_to_rest": 0}}, "must be 1 or more"),
        ({"bounds": {"rest_s": 700}}, "at most longest_rest_s"),
        ({"bounds": {"max_dolars": 5}}, "Did you mean max_dollars?"),
        ({"experts": [{**EXPERT, "requests_per_minute": 0}]}, "requests_per_minute=0 must be 1 or more"),
        ({"experts": [{**EXPERT, "num_answers": 0}]}, "num_answers=0 must be 1 or more"),
        ({"experts": [{**EXPERT, "max_dollars": -2}]}, "max_dollars=-2 must be 0 or more"),
        ({"experts": [{**EXPERT, "tokens_per_minute": 100}]}, "nothing could ever be asked"),
    ],
)
def test_what_cannot_work_about_asking_and_bounds_is_said_with_the_way_out(block, says):
    (found,) = problems(**block)
    assert says in found


def test_a_budget_needs_prices_where_money_is_taken(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-1234567")
    paid = {**EXPERT, "base_url": None, "api_key_env": "MY_KEY"}
    assert "has no price" in problems(experts=[paid], bounds={"max_dollars": 5.0})[0]
    EkiplSettings.from_config({"experts": [EXPERT], "bounds": {"max_dollars": 5.0}})  # a server of one's own is free


def test_a_schedule_that_is_not_used_needs_no_length():
    EkiplSettings.from_config({"ask": {"fraction": {"schedule": "linear"}}})


def test_an_expert_may_have_an_n_of_its_own():
    settings = EkiplSettings.from_config(
        {"num_answers": 8, "experts": [EXPERT, {**EXPERT, "name": "b", "num_answers": 2}]}
    )
    assert [settings.answers_of(expert) for expert in settings.experts] == [8, 2]
    assert settings.num_candidates == 18
