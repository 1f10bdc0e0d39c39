import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import ImageChops

from ekipl_reward import compute_score
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import SPLITS, TASKS
from recipe.ekipl.data.synthetic.problem import VOICES, response
from recipe.ekipl.data.synthetic.write import make, problem_of


def test_there_are_seven_test_splits():
    assert sum(split.is_test for split in SPLITS) == 7


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: f"{s.task}-{s.name}")
def test_right_reasoning_always_scores_full_and_a_near_miss_never_does(split):
    rng = np.random.default_rng(0)
    for _ in range(50):
        problem = make(split, rng)
        for voice in range(VOICES):
            right = compute_score(split.data_source, response(*problem.solve(rng, voice, True)), problem.answer)
            wrong = compute_score(split.data_source, response(*problem.solve(rng, voice, False)), problem.answer)
            assert right["score"] == 2.0
            assert wrong["format"] == 1.0
            assert wrong["accuracy"] < 1.0


def test_a_row_is_drawn_again_from_its_id_alone():
    first, again = (problem_of("visual_counting-train-17", seed=5) for _ in range(2))
    other = problem_of("visual_counting-train-17", seed=6)
    assert (first.question, first.answer) == (again.question, again.answer)
    assert ImageChops.difference(first.images[0], again.images[0]).getbbox() is None
    assert ImageChops.difference(first.images[0], other.images[0]).getbbox() is not None


def test_the_world_has_the_released_layout(world):
    (train,) = world.glob("train_jsons/A1-Spatial-Transformation-train-*-cot.json")
    row = json.loads(train.read_text())[0]
    assert set(row) == {"id", "image", "problem", "cot", "answer"}
    assert len(row["image"]) == 2
    (test,) = world.glob("test_jsons/Visual-Counting-ood-test-*.json")
    assert set(json.loads(test.read_text())[0]) == {"id", "image", "problem", "answer"}


def test_every_row_arrives_in_parquet_with_its_pictures_unchanged(world, tmp_path):
    counts = convert(world, tmp_path, list(TASKS), "plain")
    assert len(counts) == 3 * 3 + 7
    rows = pq.read_table(tmp_path / "visual_counting" / "train.rl.parquet").to_pylist()
    assert len(rows) == 12
    first = rows[0]
    assert first["data_source"] == "clevr_math"
    assert first["prompt"][0]["content"].startswith("<image>Count all")
    assert first["images"][0]["bytes"] == (world / "images/train_images/visual_counting-train-0.png").read_bytes()
    spatial = pq.read_table(tmp_path / "spatial_transformation" / "trance_left.rl.parquet").to_pylist()[0]
    assert spatial["prompt"][0]["content"].startswith("<image><image>")
    assert (tmp_path / "refused.jsonl").read_text() == ""


def test_a_second_conversion_leaves_finished_files_alone(world, tmp_path):
    convert(world, tmp_path, ["visual_counting"], "plain")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    convert(world, tmp_path, ["visual_counting"], "plain")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


BROKEN = {
    "truth is no number": ({"answer": "three"}, "a count must be a number"),
    "truth is no text": ({"answer": 3}, "must be a string"),
    "no truth": ({"answer": None}, "must be a string"),
    "no question": ({"problem": "  "}, "`problem` must be a text"),
    "no picture named": ({"image": []}, "`image` must be"),
    "picture is not there": ({"image": "nowhere.png"}, "is in none of"),
    "picture outside": ({"image": "../../etc/passwd"}, "is in none of"),
    "picture is no text": ({"image": [7]}, "instead of a file name"),
    "picture cannot be decoded": ({"image": "broken.png"}, "cannot be decoded"),
}


def test_rows_that_cannot_be_used_are_listed_with_the_reason(world, tmp_path):
    data = tmp_path / "data"
    (data / "test_jsons").mkdir(parents=True)
    (data / "images" / "test_images").mkdir(parents=True)
    good = json.loads(next(world.glob("test_jsons/Visual-Counting-id-test-*.json")).read_text())[0]
    picture = (world / "images/test_images" / good["image"]).read_bytes()
    (data / "images/test_images" / good["image"]).write_bytes(picture)
    (data / "images/test_images/broken.png").write_bytes(picture[:60])
    rows = [good, "not an object", *({**good, "id": name, **change} for name, (change, _) in BROKEN.items())]
    (data / "test_jsons" / "Visual-Counting-id-test-11.json").write_text(json.dumps(rows))
    counts = convert(data, tmp_path / "out", ["visual_counting"], "plain")
    assert list(counts.values()) == [1]
    refused = {r["id"]: r["reason"] for r in map(json.loads, (tmp_path / "out/refused.jsonl").read_text().splitlines())}
    assert len(refused) == len(BROKEN) + 1
    for name, (_, reason) in BROKEN.items():
        assert reason in refused[name]


def test_two_files_for_one_split_are_refused(world, tmp_path):
    (tmp_path / "test_jsons").mkdir()
    for count in (1, 2):
        (tmp_path / "test_jsons" / f"Visual-Counting-id-test-{count}.json").write_text("[]")
    with pytest.raises(FileExistsError, match="Keep one"):
        convert(tmp_path, tmp_path / "out", ["visual_counting"], "plain")
