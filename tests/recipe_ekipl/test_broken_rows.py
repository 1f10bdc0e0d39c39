"""A corpus of broken rows, each with the words that must say why: broken_rows.jsonl."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from recipe.ekipl.data.reason_rft import convert

CORPUS = [json.loads(line) for line in Path(__file__).with_name("broken_rows.jsonl").read_text().splitlines()]
COUNTING = {"image": "good.png", "problem": "How many cubes?", "answer": "3"}
SPATIAL = {"image": ["good.png", "good.png"], "problem": "What changed?", "answer": "change_color(0, red)"}


class Raw(str):
    """JSON text that stands in a file as it is."""


def deep(levels: int) -> Raw:
    return Raw("[" * levels + "]" * levels)


def as_json(rows: list) -> str:
    return f"[{', '.join(row if isinstance(row, Raw) else json.dumps(row) for row in rows)}]"


def broken(case: dict):
    if "row" in case:
        return deep(10_000) if case["row"] == "DEEP" else case["row"]
    row = {**(SPATIAL if case.get("spatial") else COUNTING), **case.get("with", {}), "id": case["name"]}
    row.pop(case.get("without"), None)
    return {**row, "answer": "3" * 100_000} if row.get("answer") == "LONG" else row


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """What became of the corpus, with one good row in each file."""
    root = tmp_path_factory.mktemp("broken")
    data, pictures = root / "data", root / "data" / "images" / "test_images"
    (pictures / "folder").mkdir(parents=True)
    good = Image.new("RGB", (84, 84), (10, 20, 30))
    for path in (pictures / "good.png", root / "outside.png"):
        good.save(path)
    (pictures / "link.png").symlink_to(root / "outside.png")
    (pictures / "cut.png").write_bytes((pictures / "good.png").read_bytes()[:60])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.png").write_text("a picture of three cubes")
    Image.new("1", (9000, 9000)).save(pictures / "enormous.png")
    Image.new("1", (500, 2)).save(pictures / "line.png")
    with open(pictures / "heavy.png", "wb") as file:
        file.truncate(64_000_001)  # no block of it is on the disk
    (data / "test_jsons").mkdir()
    for name, spatial, row in (("Visual-Counting", False, COUNTING), ("Spatial-Transformation", True, SPATIAL)):
        rows = [row, *(broken(case) for case in CORPUS if bool(case.get("spatial")) == spatial)]
        (data / "test_jsons" / f"{name}-id-test-{len(rows)}.json").write_text(as_json(rows))
    convert(data, root / "out", ["visual_counting", "spatial_transformation"])
    lines = [line for path in root.glob("out/*/*.refused.jsonl") for line in path.read_text().splitlines()]
    return root / "out", [json.loads(line) for line in lines]


def test_the_corpus_has_forty_rows_and_none_is_lost(refused):
    out, lines = refused
    assert len(CORPUS) >= 40
    assert len(lines) == len(CORPUS)
    assert [pq.read_metadata(path).num_rows for path in sorted(out.glob("*/*.parquet"))] == [1, 1]


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"])
def test_a_broken_row_is_refused_with_its_reason(refused, case):
    _, lines = refused
    nameless = [line for line in lines if line["id"].startswith("#")]
    rows_without_id = [c["name"] for c in CORPUS if "row" in c]
    if "row" in case:
        (line,) = [nameless[rows_without_id.index(case["name"])]]
    else:
        (line,) = [line for line in lines if line["id"] == case["name"]]
    assert case["reason"] in line["reason"]
    assert line["missing_from"] == ["rl"]
