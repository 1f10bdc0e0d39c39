"""Data of one's own, mixtures, and the commands as they stand in docs/data.md."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from recipe.ekipl import methods
from recipe.ekipl.data.__main__ import main
from recipe.ekipl.data.mix import mix, plan_mix
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.evaluate.rows import find_splits, read_rows

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The example of the page, with pictures."""
    monkeypatch.chdir(tmp_path)
    (rows,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    Path("my_rows.jsonl").write_text(rows)
    for name in re.findall(r"\w+\.png", rows):
        Image.new("RGB", (56, 56)).save(name)
    return tmp_path


def test_the_example_of_the_page_works_as_it_stands(own, capsys):
    commands = [
        line for line in PAGE.splitlines() if line.startswith("python -m recipe.ekipl.data ") and "my_rows" in line
    ]
    assert len(commands) == 2
    for command in commands:
        assert main(shlex.split(command)[3:]) == 0, capsys.readouterr().err
    assert "each 2.0 times" in capsys.readouterr().out
    rows = list(read_rows(find_splits(None, ["data/mixed.rl.parquet"])[0]))
    assert len(rows) == 6
    assert {row.data_source for row in rows} == {"visual_counting", "structure_perception", "spatial_transformation"}
    assert [len(row.question.images) for row in rows] == [1, 1, 2] * 2


def test_own_rows_that_cannot_be_used_are_listed_line_by_line(own, capsys):
    good = Path("my_rows.jsonl").read_text()
    lines = [good.splitlines()[0], "{no json", "", '{"task": "chess"}', "[1]", "[" * 100_000, good.splitlines()[2]]
    Path("my_rows.jsonl").write_text("\n".join(lines))
    assert main(["own", "my_rows.jsonl", "--out", "out"]) == 0
    assert "4 refused (3 row, 1 task)" in capsys.readouterr().out
    refused = [json.loads(line)["reason"] for line in Path("out/my_rows.refused.jsonl").read_text().splitlines()]
    assert refused[0].startswith("line 2 is no JSON")
    assert "no reward is known for data_source='chess'" in refused[1]
    assert refused[2] == "the row is not an object but list"
    assert "more than 50 deep" in refused[3]
    assert pq.read_metadata("out/my_rows.rl.parquet").num_rows == 2
    assert not Path("out/my_rows.sft.parquet").exists()


@pytest.mark.parametrize("place", ["id", "problem", "cot"])
def test_half_a_character_costs_its_row_and_can_be_read_in_the_report(own, place):
    """JSON may hold it, as both providers' SDKs deliver it, and no file and no parquet can."""
    good = json.loads(Path("my_rows.jsonl").read_text().splitlines()[0])
    good["cot"] = "two of them are red"
    rows = [{**good, "id": "a", place: "half \ud83d"}, {**good, "id": ["a list"]}]
    Path("my_rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert main(["own", "my_rows.jsonl", "--out", "out"]) == 0
    (line,) = Path("out/my_rows.refused.jsonl").read_text().splitlines()
    assert f"`{place}` is no Unicode" in json.loads(line)["reason"]
    assert json.loads(line)["id"] == ("half \ud83d" if place == "id" else "a")
    (row,) = pq.read_table("out/my_rows.rl.parquet").to_pylist()
    assert row["extra_info"]["id"] == "#1"


def test_own_rows_with_reasoning_become_lessons(own):
    row = {**json.loads(Path("my_rows.jsonl").read_text().splitlines()[0]), "cot": "two of them are red"}
    Path("my_rows.jsonl").write_text(json.dumps(row))
    assert main(["own", "my_rows.jsonl", "--out", "out", "--template", "plain"]) == 0
    (lesson,) = pq.read_table("out/my_rows.sft.parquet").to_pylist()
    assert lesson["messages"][1]["content"] == "<think> two of them are red </think><answer> 2 </answer>"


def test_a_file_without_a_usable_row_and_limits_that_cannot_be_met_are_errors(own, capsys):
    Path("none.jsonl").write_text("{}\n")
    assert main(["own", "none.jsonl", "--out", "out"]) == 2
    assert "has no usable row" in capsys.readouterr().err
    assert main(["own", "my_rows.jsonl", "--out", "out", "--min-pixels", "9", "--max-pixels", "4"]) == 2
    assert "--min-pixels 9 must be above 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of 30 and 10 rows with other numbers in them."""
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("mix")
    for name, numbers in (("a", range(30)), ("b", range(100, 110))):
        pq.write_table(pa.table({"n": list(numbers)}), folder / f"{name}.parquet")
    return folder / "a.parquet", folder / "b.parquet"


def drawn(files, tmp_path, weights, rows, seed=0):
    shares = plan_mix(dict(zip(files, weights, strict=True)), rows)
    out = tmp_path / "mixed.parquet"
    assert mix(shares, out, seed) == sum(share.takes for share in shares)
    return pq.read_table(out)["n"].to_pylist()


def test_a_mixture_has_each_file_by_its_weight_evenly_spread(files, tmp_path):
    rows = drawn(files, tmp_path, (3, 1), 20)
    assert sum(n >= 100 for n in rows) == 5
    assert len(set(rows)) == 20
    assert all(sum(n >= 100 for n in rows[k : k + 4]) == 1 for k in range(0, 20, 4))


def test_without_a_number_the_mixture_is_the_largest_without_repetition(files, tmp_path):
    rows = drawn(files, tmp_path, (1, 1), None)
    assert len(rows) == len(set(rows)) == 20


def test_a_file_that_is_too_small_comes_round_again_whole_passes_first(files, tmp_path):
    rows = [n for n in drawn(files, tmp_path, (1, 1), 50) if n >= 100]
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(100, 110))
    assert len(set(rows[20:])) == 5


def test_the_same_seed_draws_the_same_rows_and_another_one_others(files, tmp_path):
    first, again, other = (drawn(files, tmp_path, (1, 1), 8, seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.parquet=0"], "a weight must be above zero"),
        (["nowhere.parquet"], "does not exist"),
        (["a.parquet=much"], "is no weight"),
        (["a.parquet=1", "b.parquet=1000", "--rows", "3"], "leave no row for"),
    ],
)
def test_a_mixture_that_cannot_be_made_says_why(files, monkeypatch, capsys, words, message):
    monkeypatch.chdir(files[0].parent)
    assert main(["mix", *words, "--out", "out.parquet"]) == 2
    assert message in capsys.readouterr().err


def test_a_mixture_of_folders_is_a_folder_that_a_method_reads(world, tmp_path, monkeypatch, capsys):
    """The command of the page. Each training file is mixed by weight; what is held out of both lies beside them."""
    monkeypatch.chdir(tmp_path)
    convert(world, Path("data/rows"), ["visual_counting", "spatial_transformation"], "plain")
    (command,) = [line for line in PAGE.splitlines() if line.startswith("python -m recipe.ekipl.data mix data/rows")]
    assert main(shlex.split(command)[3:]) == 0, capsys.readouterr().err
    for use in ("rl", "sft", "ans"):
        rows = pq.read_table(f"data/mixed/train.{use}.parquet").to_pylist()
        assert len(rows) == 18  # 12 of counting, half as many of the other
        of_counting = sum("clevr_math" in str(row) for row in rows) if use == "rl" else None
        assert of_counting in (12, None)
    held_out = {path.name for path in Path("data/mixed").glob("*.rl.parquet")} - {"train.rl.parquet"}
    assert held_out == {
        f"{name}.rl.parquet" for name in ("clevr_math", "super_clevr", "trance", "trance_left", "trance_right")
    }
    assert main(shlex.split(command)[3:]) == 0, "again, over what is there"
    told = []
    monkeypatch.setattr(methods.Lanes, "call", lambda lanes, command: told.append(command) or 0)
    monkeypatch.setattr(methods, "output_of", lambda stage: f"{stage.folder}/model")
    assert (
        methods.main(["sft_ekipl", "--model", "base", "--rows", "data/mixed", "--run", "run", "--experts", "demo"]) == 0
    )
    lessons, reinforcement = (" ".join(command) for command in told)
    assert f"data.train_files=[{tmp_path}/data/mixed/train.sft.parquet]" in lessons
    assert f"data.train_files=[{tmp_path}/data/mixed/train.rl.parquet]" in reinforcement
    assert all(name in reinforcement for name in held_out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "a.parquet"], "folders and files cannot be mixed"),
        (["a", "empty"], "have no training file in common"),
        (["a", "b"], "have one name"),
    ],
)
def test_folders_that_do_not_mix_say_why(files, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b", "empty"):
        Path(folder).mkdir()
    for folder in ("a", "b"):
        for name in ("train", "test"):
            shutil.copy(files[0], Path(folder, f"{name}.rl.parquet"))
    shutil.copy(files[0], "a.parquet")
    assert main(["mix", *words, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
