"""What an expert is shown, by what went over the wire: text, pictures, examples."""

import asyncio
import base64
import json

import pytest

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.experts import pictures
from ekipl_rollout.settings import ExampleSettings
from tests.rollout.expert_helpers import KINDS, CountingBounds, ask, client, expert_settings, picture, question

pytestmark = pytest.mark.usefixtures("key")


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
