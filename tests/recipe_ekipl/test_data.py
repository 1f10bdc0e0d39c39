import json
import shutil
import time
import tracemalloc

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ekipl_reward.spatial_transformation import FUNCTIONS
from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.prompts import TEMPLATES
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import SPLITS, TASKS
from recipe.ekipl.data.write import RECORDS


def test_there_are_seven_test_splits():
    assert sum(split.is_test for split in SPLITS) == 7


def parquet(path):
    return pq.read_table(path).to_pylist()


def test_every_row_arrives_in_parquet_with_its_pictures_unchanged(world, tmp_path):
    done = convert(world, tmp_path, list(TASKS), "plain")
    assert [sum(c.rows.values()) for c in done if c.name.endswith("/train")] == [36, 36, 36]
    assert len(list(tmp_path.glob("*/*.parquet"))) == 3 * (3 + 1) + 7
    rows = parquet(tmp_path / "visual_counting" / "train.rl.parquet")
    assert len(rows) == 12
    first = rows[0]
    assert first["data_source"] == "clevr_math"
    assert first["prompt"][0]["content"].startswith("<image>Count all")
    assert first["images"][0]["bytes"] == (world / "images/train_images/visual_counting-train-0.png").read_bytes()
    spatial = parquet(tmp_path / "spatial_transformation" / "trance_left.rl.parquet")[0]
    assert spatial["prompt"][0]["content"].startswith("<image><image>")
    assert all(path.read_text() == "" for path in tmp_path.glob("*/*.refused.jsonl"))


def test_lessons_come_with_and_without_reasoning(world, tmp_path):
    convert(world, tmp_path, ["visual_counting"], "plain")
    (user, told), (same, bare) = (
        parquet(tmp_path / "visual_counting" / f"train.{use}.parquet")[0]["messages"] for use in ("sft", "ans")
    )
    assert user == same
    assert told["content"].startswith("<think> ")
    assert told["content"].endswith(bare["content"])
    assert bare["content"].startswith("<answer> ")


def test_a_row_without_reasoning_is_missing_from_one_file_only_and_that_is_said(world, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world, data)
    (path,) = data.glob("train_jsons/A3-*.json")
    rows = json.loads(path.read_text())
    rows[3].pop("cot")
    rows[4]["cot"] = "<think>too much</think>"
    path.write_text(json.dumps(rows))
    done = convert(data, tmp_path / "out", ["visual_counting"])
    assert done[0].rows == {"train.rl.parquet": 12, "train.sft.parquet": 10, "train.ans.parquet": 12}
    lines = (tmp_path / "out/visual_counting/train.refused.jsonl").read_text().splitlines()
    missing = [json.loads(line) for line in lines]
    assert [(line["index"], line["missing_from"]) for line in missing] == [(3, ["sft"]), (4, ["sft"])]
    assert "write the bare reasoning" in missing[1]["reason"]


def test_each_picture_carries_both_limits_and_can_be_named_instead_of_embedded(world, tmp_path):
    convert(world, tmp_path, ["visual_counting"], "plain", pictures="reference", max_pixels=200_000)
    row = parquet(tmp_path / "visual_counting" / "clevr_math.rl.parquet")[0]
    picture = world.resolve() / "images/test_images/visual_counting-clevr_math-0.png"
    assert row["images"] == [{"image": str(picture), "max_pixels": 200_000, "min_pixels": 3136}]


def test_a_finished_split_is_left_alone_and_a_stale_one_is_converted_again_with_a_word(world, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(world, data)

    def whys(template="plain", **options):
        done = convert(data, out, ["visual_counting"], template, **options)
        return {one.name.split("/")[1]: one.why for one in done}

    assert set(whys().values()) == {"new"}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert set(whys().values()) == {""}
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}

    (out / "visual_counting" / "super_clevr.rl.parquet").write_bytes(b"PAR1")
    assert whys() == {
        "train": "",
        "base": "",
        "clevr_math": "",
        "super_clevr": "super_clevr.rl.parquet is gone or was changed",
    }
    (path,) = data.glob("test_jsons/Visual-Counting-id-*.json")
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    assert whys()["clevr_math"] == f"{path.name} has changed"
    assert whys("reason_rft")["train"] == "other options: template"
    assert whys("reason_rft", again=True)["train"] == "asked for"
    (out / "manifest.json").unlink()
    assert whys("reason_rft")["train"] == "an older converter made it"


def test_a_conversion_that_was_killed_leaves_no_half_file_that_counts(world, tmp_path, monkeypatch):
    def killed(row, how):
        raise KeyboardInterrupt

    monkeypatch.setitem(RECORDS, "ans", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(world, tmp_path, ["visual_counting"], "plain")
    assert not list(tmp_path.rglob("*.parquet"))
    monkeypatch.undo()
    assert [done.why for done in convert(world, tmp_path, ["visual_counting"], "plain")] == ["new"] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rows": []}', "is not a JSON list"),
        ('[{"id": 1}, {"id"', "is broken after 1 rows"),
        ("[]", "has no usable row"),
    ],
)
def test_a_file_that_is_no_list_or_cut_off_is_an_error(tmp_path, text, message):
    (tmp_path / "test_jsons").mkdir()
    (tmp_path / "test_jsons" / "Visual-Counting-id-test-1.json").write_text(text)
    with pytest.raises(SettingsError, match=message):
        convert(tmp_path, tmp_path / "out", ["visual_counting"])


def one_split(folder, rows: str):
    """A data set of one file, and the ids and refusals that come of it."""
    (folder / "test_jsons").mkdir()
    (folder / "test_jsons" / "Visual-Counting-id-test-9.json").write_text(rows)
    Image.new("RGB", (56, 56)).save(folder / "a.png")
    convert(folder, folder / "out", ["visual_counting"])
    out = folder / "out" / "visual_counting"
    refused = [json.loads(line) for line in (out / "clevr_math.refused.jsonl").read_text().splitlines()]
    return [row["extra_info"]["id"] for row in parquet(out / "clevr_math.rl.parquet")], refused


GOOD = '"image": "a.png", "problem": "How many?", "answer": "3"'


def test_a_number_of_any_length_costs_no_row(tmp_path):
    long = "9" * 30
    ids, refused = one_split(tmp_path, f'[{{"id": {long}, {GOOD}}}, {{"id": 1, "level": 1e999, {GOOD}}}]')
    assert (ids, refused) == ([long, "1"], [])


def test_a_well_of_objects_is_passed_over_in_no_time(tmp_path):
    """Built as it stands it would take minutes, with the square of its depth."""
    well = '{"a": ' * 100_000 + "1" + "}" * 100_000
    start = time.process_time()
    ids, refused = one_split(tmp_path, f'[{well}, {{"id": "b", {GOOD}}}]')
    assert ids == ["b"]
    assert "more than 50 deep" in refused[0]["reason"]
    assert time.process_time() - start < 5


def test_reasoning_that_verl_would_look_for_a_picture_in_is_no_lesson(world, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world, data)
    (path,) = data.glob("train_jsons/A3-*.json")
    rows = json.loads(path.read_text())
    rows[3]["cot"] = "In the <image> there are three."
    path.write_text(json.dumps(rows))
    done = convert(data, tmp_path / "out", ["visual_counting"])
    assert done[0].rows == {"train.rl.parquet": 12, "train.sft.parquet": 11, "train.ans.parquet": 12}
    (line,) = (tmp_path / "out/visual_counting/train.refused.jsonl").read_text().splitlines()
    assert "`cot` holds <image>" in json.loads(line)["reason"]


def peak_of_a_conversion(folder, rows: int) -> int:
    """Bytes that Python held at most."""
    (folder / "test_jsons").mkdir(parents=True)
    text = ", ".join(f"{{{GOOD}}}" for _ in range(rows))
    (folder / "test_jsons" / "Visual-Counting-id-test-9.json").write_text(f"[{text}]")
    Image.new("RGB", (56, 56)).save(folder / "a.png")
    tracemalloc.start()
    convert(folder, folder / "out", ["visual_counting"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("recipe.ekipl.data.write.ROWS_PER_GROUP", 50)
    _, few, many = (peak_of_a_conversion(tmp_path / str(rows), rows) for rows in (10, 100, 1000))
    assert many < few + 300_000  # 900 rows more are a megabyte and a half


def test_pictures_of_any_size_are_written_in_bounded_pieces(world, tmp_path, monkeypatch):
    monkeypatch.setattr("recipe.ekipl.data.write.BYTES_PER_GROUP", 1)
    convert(world, tmp_path, ["visual_counting"], "plain")
    assert pq.ParquetFile(tmp_path / "visual_counting" / "train.rl.parquet").num_row_groups == 12


def test_two_files_for_one_split_are_refused(world, tmp_path):
    (tmp_path / "test_jsons").mkdir()
    for count in (1, 2):
        (tmp_path / "test_jsons" / f"Visual-Counting-id-test-{count}.json").write_text("[]")
    with pytest.raises(SettingsError, match="Keep one"):
        convert(tmp_path, tmp_path / "out", ["visual_counting"], "plain")


def test_the_released_template_gives_the_answers_type_away_and_the_neutral_one_does_not():
    asked = {
        (name, truth): TEMPLATES[name]("structure_perception", "geomath", "How long?", truth)
        for name in ("reason_rft", "reason_rft_neutral")
        for truth in ("B", "45")
    }
    assert asked["reason_rft", "B"] != asked["reason_rft", "45"]
    assert asked["reason_rft_neutral", "B"] == asked["reason_rft_neutral", "45"]
    far = {TEMPLATES["reason_rft"]("structure_perception", "geometry3k", "How long?", truth) for truth in ("B", "45")}
    assert far == {asked["reason_rft_neutral", "B"]}


def test_the_template_for_changes_names_every_call_that_the_reward_knows():
    text = TEMPLATES["reason_rft"]("spatial_transformation", "trance", "?", "change_color(0, red)")
    assert [line.partition("(")[0] for line in text.splitlines() if line.startswith("- ")] == [
        f"- {f}" for f in FUNCTIONS
    ]
