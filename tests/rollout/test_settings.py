import pytest

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import EkiplSettings

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
