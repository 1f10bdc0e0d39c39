"""Which rows an evaluation asks about, and what each of them shows."""

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.rows import find_splits, read_rows
from tests.recipe_ekipl.evaluate_helpers import write_rows


def test_a_row_shows_its_pictures_where_the_markers_stand(parquet, world):
    (split,) = find_splits(parquet, ["trance_left"])
    row = next(read_rows(split))
    (turn,) = row.question.messages
    assert [type(part) for part in turn.parts] == [bytes, bytes, str]
    assert turn.parts[0] == (world / "images/test_images/spatial_transformation-trance_left-0-init.png").read_bytes()
    assert (row.data_source, row.id) == ("trance_left", "spatial_transformation-trance_left-0")


def test_without_names_every_test_split_of_the_folder_is_evaluated(parquet):
    names = [split.name for split in find_splits(parquet, [])]
    assert names == ["trance", "trance_left", "trance_right", "clevr_math", "super_clevr"]


def test_a_file_of_ones_own_is_a_split(parquet):
    (split,) = find_splits(None, [str(parquet / "visual_counting" / "train.rl.parquet")])
    assert split.name == "visual_counting-train"
    assert len(list(read_rows(split))) == 12


def test_two_files_of_one_name_are_refused(parquet, tmp_path):
    own = tmp_path / "visual_counting" / "train.parquet"
    own.parent.mkdir()
    own.write_bytes(b"")
    with pytest.raises(SettingsError, match="two files would be called visual_counting-train"):
        find_splits(None, [str(own), str(parquet / "visual_counting" / "train.rl.parquet")])


def test_every_missing_split_is_named_at_once(parquet, tmp_path):
    with pytest.raises(SettingsError, match=r"(?s)geomath.*does not exist.*clever_math is not known"):
        find_splits(parquet, ["geomath", "clever_math"])
    with pytest.raises(SettingsError, match="holds no test split"):
        find_splits(tmp_path, [])


def test_rows_that_share_an_id_keep_apart(tmp_path):
    same = {"extra_info": {"id": "x", "index": 0}}
    rows = list(read_rows(write_rows(tmp_path / "a.parquet", same, same, same)))
    assert [row.id for row in rows] == ["x", "x#2", "x#3"]


def test_pictures_may_lie_in_files_beside_the_parquet(tmp_path):
    (tmp_path / "p.png").write_bytes(b"picture")
    rows = list(read_rows(write_rows(tmp_path / "a.parquet", {"images": [{"image": "p.png", "max_pixels": 1000}]})))
    assert rows[0].question.images == [b"picture"]
    assert rows[0].limits == ({"max_pixels": 1000},)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reward_model": {"ground_truth": "three"}}, "a count must be a number"),
        ({"data_source": "elsewhere"}, "no reward is known"),
        ({"images": [{"bytes": b"a"}, {"bytes": b"b"}]}, "1 <image> markers in the prompt, but 2 pictures"),
        ({"images": [{"image": "http://somewhere/p.png"}]}, "must lie on this machine"),
        ({"images": [{"image": "nowhere.png"}]}, "nowhere.png"),
    ],
)
def test_a_row_that_cannot_be_asked_or_judged_is_named_before_anything_starts(tmp_path, change, why):
    with pytest.raises(SettingsError, match=f"(?s)row 0 .r0.*{why}"):
        list(read_rows(write_rows(tmp_path / "a.parquet", change)))
