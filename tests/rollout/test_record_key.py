import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.record import key as keys
from ekipl_rollout.record.key import key_from, key_of
from ekipl_rollout.settings import ExpertSettings

EXPERT = ExpertSettings(name="gpt", kind="openai", model="m", base_url="http://127.0.0.1:1/v1")
texts = st.text(max_size=20) | st.text(alphabet=st.characters(categories=["Cs"]), max_size=3)
turns = st.builds(
    Message, st.sampled_from(["system", "user", "assistant"]), st.lists(texts | st.binary(max_size=9)).map(tuple)
)
conversations = st.lists(turns, min_size=1, max_size=4).map(tuple)


def digest(messages, settings=EXPERT, id="q"):
    return key_of(settings, Question(id, messages)).digest


@given(conversations, conversations)
def test_two_questions_have_one_key_exactly_when_their_content_is_the_same(one, other):
    assert (digest(one, id="a") == digest(other, id="b")) == (one == other)


@given(conversations)
def test_a_key_can_be_computed_anew_from_what_the_record_keeps(messages):
    key = key_of(EXPERT, Question("q", messages))
    assert key_from(json.loads(key.asked)) == key


def test_a_picture_counts_by_its_bytes_and_its_place():
    base = (Message("user", (b"one", b"two", "how many?")),)
    assert digest(base) == digest((Message("user", (b"one", b"two", "how many?")),))
    assert digest(base) != digest((Message("user", (b"two", b"one", "how many?")),))
    assert digest(base) != digest((Message("user", (b"one", "how many?", b"two")),))
    assert digest(base) != digest((Message("user", (b"onE", b"two", "how many?")),))


def test_a_text_cannot_pass_for_a_picture():
    import hashlib

    picture = (Message("user", (b"picture",)),)
    assert digest(picture) != digest((Message("user", (hashlib.sha256(b"picture").hexdigest(),)),))


CHANGES = {"kind": "gemini", "model": "m2", "instruction": None, "temperature": 0.5, "top_p": 0.5, "max_tokens": 2}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_that_changes_what_is_answered_changes_the_key(name):
    asked = (Message("user", ("q",)),)
    assert digest(asked) != digest(asked, replace(EXPERT, **{name: CHANGES[name]}))


def test_settings_that_only_say_how_to_reach_an_expert_do_not_change_the_key():
    asked = (Message("user", ("q",)),)
    elsewhere = replace(EXPERT, name="other", base_url="http://127.0.0.1:2/v1", api_key_env="KEY", max_in_flight=2)
    assert digest(asked) == digest(asked, replace(elsewhere, dollars_per_million_input=3.0))


def test_every_setting_of_an_expert_is_in_the_key_or_known_not_to_be():
    lists = (set(keys.IN_KEY), set(keys.IN_KEY_WHEN_SET), set(keys.NOT_IN_KEY))
    for field in fields(ExpertSettings):
        assert sum(field.name in names for names in lists) == 1, (
            f"{field.name}: put it into IN_KEY_WHEN_SET of record/key.py if it changes what is answered, else into NOT_IN_KEY"
        )


def test_one_and_one_point_zero_are_the_same_temperature():
    asked = (Message("user", ("q",)),)
    assert digest(asked, replace(EXPERT, temperature=1, top_p=1)) == digest(asked)


def test_an_offline_expert_is_known_by_its_model_alone():
    asked, offline = (Message("user", ("q",)),), ExpertSettings(name="r1", kind="offline", model="r1")
    assert digest(asked, offline) == digest(asked, replace(offline, temperature=0.1, instruction=None, max_tokens=7))
    assert digest(asked, offline) != digest(asked, replace(offline, model="r2"))


def test_the_pictures_of_a_question_are_hashed_once_for_all_experts(monkeypatch):
    import hashlib

    hashed = []
    original = hashlib.sha256
    monkeypatch.setattr("ekipl_rollout.answer.hashlib.sha256", lambda data: hashed.append(data) or original(data))
    question = Question("q", (Message("user", (b"picture", "how many?")),))
    for model in ("a", "b", "c"):
        key_of(replace(EXPERT, model=model), question)
    assert hashed.count(b"picture") == 1


def test_the_key_of_a_known_question_is_the_one_it_always_was():
    """Changes when the key changes, which makes every record ask again: raise VERSION and say so in docs/record.md."""
    key = key_of(replace(EXPERT, instruction="Use tags."), Question("q", (Message("user", (b"picture", "how many?")),)))
    assert key.digest.hex() == "41dbdcb918a782987fa3d20d3b0096753c0d6142cbde3de7a22dbb84b8941a09"
