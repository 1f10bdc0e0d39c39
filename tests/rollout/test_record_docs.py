"""docs/record.md says what is true: its examples work, and its tables are complete."""

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from ekipl_rollout.answer import AnswerStatus, Message, Question
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.record import key as keys
from ekipl_rollout.record.__main__ import main
from ekipl_rollout.settings import EkiplSettings
from ekipl_rollout.settings.record import MISSING, RECORD_MODES
from tests.rollout.record_helpers import EXPERT

DOCS = (Path(__file__).parents[2] / "docs" / "record.md").read_text()


def example(name):
    return re.search(rf"<!-- tested: {name} -->\n```\w+\n(.*?)```", DOCS, re.S).group(1)


async def replayed(block, question):
    settings = EkiplSettings.from_config(block)
    experts = build_experts(settings.experts, settings.record)
    try:
        return [(a.source, a.text, a.status) for e in experts for a in await e.answer(question, 8)]
    finally:
        for expert in experts:
            await expert.close()


@pytest.fixture
def lines(tmp_path):
    """lines(example) -> a file with it, beside the pictures that it names."""
    for name in ("scene.png", "before.png", "after.png"):
        (tmp_path / name).write_bytes(name.encode())

    def write(name):
        (tmp_path / "lines.jsonl").write_text(example(name))
        return str(tmp_path / "lines.jsonl")

    return write


def test_the_traces_can_be_imported_and_are_what_the_offline_expert_says(lines, tmp_path):
    record = tmp_path / "traces.sqlite"
    assert main(["import", str(record), lines("traces")]) == 0
    block = yaml.safe_load(example("offline"))["ekipl"]
    block["record"]["path"] = str(record)
    one = Question("1", (Message("user", (b"scene.png", "How many red objects are left?")),))
    said = (b"before.png", b"after.png", "What changed?")
    two = Question("2", (Message("system", ("Think first.",)), Message("user", said)))
    assert [text for _, text, _ in asyncio.run(replayed(block, one))] == [
        "<think> one red cube, one red ball </think><answer> 2 </answer>"
    ]
    assert [(source, status) for source, _, status in asyncio.run(replayed(block, two))] == [
        ("r1", AnswerStatus.FINISHED),
        ("r1", AnswerStatus.CUT_AT_LENGTH),
    ]


def test_the_exported_line_can_be_imported_and_replayed(lines, tmp_path):
    record = tmp_path / "r.sqlite"
    assert main(["import", str(record), lines("export")]) == 0
    expert = {"name": "gpt", "kind": "openai", "model": "m", "base_url": EXPERT.base_url, "instruction": "Use tags."}
    block = {"experts": [expert], "record": {"path": str(record), "mode": "replay"}}
    question = Question("1", (Message("user", (b"picture", "how many?")),))
    assert asyncio.run(replayed(block, question))[0][1].endswith("<answer> 3 </answer>")


def test_every_mode_status_and_part_of_the_key_is_in_the_tables():
    for name in (*RECORD_MODES, *MISSING, *(s.value for s in AnswerStatus)):
        assert f"`{name}`" in DOCS
    for name in (*keys.IN_KEY, *keys.IN_KEY_WHEN_SET):
        assert f"`{name}`" in DOCS
    assert f"| version of the key | {keys.VERSION} |" in DOCS
