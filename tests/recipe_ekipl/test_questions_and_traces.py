import asyncio
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ekipl_rollout.answer import Message
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.settings import ExpertSettings, RecordSettings
from recipe.ekipl.data import traces
from recipe.ekipl.data.questions import count_rows, read_questions
from recipe.ekipl.data.reason_rft import convert


@pytest.fixture(scope="module")
def rows(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    convert(world, out, ["visual_counting", "spatial_transformation"], "reason_rft")
    return [str(out / task / "train.rl.parquet") for task in ("visual_counting", "spatial_transformation")]


def test_each_row_becomes_the_question_with_its_pictures_first_and_as_they_lie_on_disk(rows, world):
    asked = list(read_questions(rows))
    assert len(asked) == count_rows(rows) == 24
    counting, spatial = asked[0], asked[12]
    assert counting.id == "visual_counting-train-0"
    (turn,) = counting.question.messages
    assert turn.role == "user"
    assert turn.parts[0] == (world / "images" / "train_images" / f"{counting.id}.png").read_bytes()
    assert turn.parts[1].endswith("in <answer> </answer> tags.")
    assert [type(part) for part in spatial.question.messages[0].parts] == [bytes, bytes, str]


def written(tmp_path, *records):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(list(records)), path)
    return [str(path)]


def test_rows_without_pictures_and_with_several_turns_are_read_too(tmp_path):
    prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1 + 1?"}]
    (row,) = read_questions(written(tmp_path, {"prompt": prompt}))
    assert row.question.messages == (Message("system", ("Think.",)), Message("user", ("1 + 1?",)))
    assert row.id == "0"


def test_a_row_that_experts_cannot_be_shown_says_why_and_the_next_one_is_read(tmp_path):
    user = lambda text: [{"role": "user", "content": text}]  # noqa: E731
    files = written(
        tmp_path,
        {"prompt": user("<image><image>?"), "images": [{"bytes": b"a", "path": None}]},
        {"prompt": user("?"), "images": [{"bytes": b"a", "path": None}]},
        {"prompt": user("<image>?"), "images": [{"bytes": None, "path": "x.png"}]},
        {"prompt": user("<image>?"), "images": [{"bytes": b"a", "path": None}]},
    )
    asked = list(read_questions(files))
    assert [row.question is None for row in asked] == [True, True, True, False]
    assert "more <image> markers" in asked[0].refusal
    assert "no <image> marker" in asked[1].refusal
    assert "original bytes" in asked[2].refusal


# --- traces -------------------------------------------------------------------------------------------------------


def replay(record, model, question, count=8):
    async def ask():
        (expert,) = build_experts([ExpertSettings("teacher", "offline", model)], RecordSettings("replay", str(record)))
        try:
            return [(a.text, a.status.value) for a in await expert.answer(question, count)]
        finally:
            await expert.close()

    return asyncio.run(ask())


def test_traces_by_row_are_what_an_offline_expert_says_in_training(rows, tmp_path, capsys):
    asked = list(read_questions(rows[:1]))
    lines = [
        {"id": asked[0].id, "text": "first"},
        {"id": asked[1].id, "text": "other row"},
        {"id": asked[0].id, "text": "second", "status": "cut_at_length"},
        {"id": asked[0].id, "text": "of another model", "model": "gpt"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    command = [
        "--rows",
        rows[0],
        "--traces",
        str(tmp_path / "t.jsonl"),
        "--model",
        "r1",
        "--record",
        str(tmp_path / "r"),
    ]
    assert traces.main(command) == 0
    assert "4 new answers for 12 rows, 0 problems" in capsys.readouterr().out
    assert traces.main(command) == 0
    assert "0 new answers" in capsys.readouterr().out
    assert replay(tmp_path / "r", "r1", asked[0].question) == [("first", "finished"), ("second", "cut_at_length")]
    assert replay(tmp_path / "r", "r1", asked[1].question) == [("other row", "finished")]
    assert replay(tmp_path / "r", "gpt", asked[0].question) == [("of another model", "finished")]


def test_traces_in_a_column_of_the_rows_come_in_as_luffy_and_ampo_keep_them(tmp_path):
    prompt = [{"role": "user", "content": "1 + 1?"}]
    target = [{"role": "assistant", "content": "two"}, {"role": "assistant", "content": "2"}]
    files = written(tmp_path, {"prompt": prompt, "target": target}, {"prompt": prompt, "target": None})
    command = ["--rows", *files, "--column", "target", "--model", "r1", "--record", str(tmp_path / "r")]
    assert traces.main(command) == 0
    (asked, _) = read_questions(files)
    assert [text for text, _ in replay(tmp_path / "r", "r1", asked.question)] == ["two", "2"]


def test_traces_that_fit_nowhere_are_named_and_the_others_come_in(rows, tmp_path, capsys):
    asked = next(read_questions(rows))
    lines = [
        "{half",
        '{"text": "no id"}',
        '{"id": "nobody", "text": "x"}',
        json.dumps({"id": asked.id, "text": "fine"}),
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    command = ["--rows", rows[0], "--traces", str(tmp_path / "t.jsonl"), "--record", str(tmp_path / "r")]
    assert traces.main(command) == 1
    assert "`model` must name the model" in capsys.readouterr().out
    assert traces.main([*command, "--model", "r1"]) == 1
    said = capsys.readouterr().out
    for expected in ("line 1", "line 2", "no row has the id 'nobody'", "1 new answers"):
        assert expected in said
    assert replay(tmp_path / "r", "r1", asked.question) == [("fine", "finished")]


@pytest.mark.parametrize("arguments", [["--column", "target"], [], ["--column", "c", "--traces", "t"]])
def test_traces_says_what_is_missing(arguments, capsys):
    with pytest.raises(SystemExit):
        traces.main(["--rows", "x", "--record", "r", *arguments])
    assert "usage" in capsys.readouterr().err
