"""The page of a run."""

import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recipe.ekipl.measure.beside import method_of, runs_beside
from recipe.ekipl.measure.report import add_rows, score_table, write_report
from recipe.ekipl.measure.summary import summarize_run
from recipe.ekipl.plan import Plan
from recipe.ekipl.run_files import RunFiles
from tests.recipe_ekipl import demo_run
from tests.recipe_ekipl.hostile_run import hostile_run

NUMBERS = dict.fromkeys(Plan.__dataclass_fields__, 0) | {
    "model": "m",
    "advantage": "",
    "run_dir": "",
    "validation_by_source": {"clevr": 100},
}
TRAINED = {"ekipl/groups/count": 4.0, "ekipl/groups/zero_variance": 0.5, "ekipl/expert_share": 0.5}


def write_run(folder: Path, after: float, experts=("gpt-4o",), baseline="all", model="base") -> Path:
    (folder / "attempts").mkdir(parents=True)
    rows = [
        {"step": 0, "data": {"val-core/clevr/acc/mean@1": 0.25, "val-aux/clevr/format/mean@1": 1.0}},
        {"step": 1, "data": TRAINED},
        {"step": 2, "data": {"val-core/clevr/acc/mean@1": after, "val-aux/clevr/format/mean@1": 1.0, **TRAINED}},
    ]
    (folder / "attempts/0001-from-000000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "ekipl": {"experts": [{"name": n} for n in experts], "advantage": {"baseline": baseline, "std": baseline}},
        "data": {"train_files": ["a.parquet"], "val_files": ["b.parquet"], "train_batch_size": 16},
        "actor_rollout_ref": {"model": {"path": model}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def page_of(folder: Path) -> str:
    files = RunFiles(folder)
    steps = files.steps()
    return write_report(files, Plan(**NUMBERS), steps, summarize_run(files, steps)).read_text()


class Page(HTMLParser):
    """What a browser would make of the page: tags, the sources of pictures, and the rows of answers with their class."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.pictures, self.kept, self.texts = [], [], 0, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, sorted(attrs)))
        if tag == "img":
            self.pictures.append(attrs["src"])
        self.kept += attrs.get("class") == "kept"

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A run of three steps on real rows; nothing has looked at it yet."""
    folder = tmp_path_factory.mktemp("demo")
    demo_run.write_world(folder / "world", list(demo_run.TASKS), train=4, base=2, test=2, seed=demo_run.SEED)
    rows = demo_run.rows_of(folder / "world", folder / "data", 4)
    return demo_run.write_run(folder / "runs" / "demo", folder / "data", rows, steps=3, groups=4)


def test_the_page_shows_groups_with_picture_question_all_answers_and_which_were_kept(demo):
    page = Page(page_of(demo))
    assert page.kept == 8 * 3, "the best eight of each group; one group a step"
    text = " ".join(page.texts)
    assert all(f"step {step}" in text for step in (1, 2, 3))
    assert "lower reward" in text
    assert page.pictures and all(url.startswith("data:image/png;base64,") for url in page.pictures)
    assert "<answer>" in text


def test_pictures_that_lie_beside_the_rows_are_shown_and_one_that_is_gone_is_told(demo, tmp_path):
    config = yaml.safe_load((demo / "config.yaml").read_text())
    for train in config["data"]["train_files"]:
        rows = pq.read_table(train).to_pylist()
        for number, row in enumerate(rows):
            for place, image in enumerate(row["images"]):
                name = tmp_path / f"{Path(train).parent.name}-{number}-{place}.png"
                name.write_bytes(image["bytes"])
                row["images"][place] = {"image": str(name)}
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{Path(train).parent.name}.parquet")
    config["data"]["train_files"] = [str(path) for path in tmp_path.glob("*.parquet")]
    moved = tmp_path / "moved"
    shutil.copytree(demo, moved)
    (moved / "config.yaml").write_text(yaml.safe_dump(config))

    assert Page(page_of(moved)).pictures == Page(page_of(demo)).pictures
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    page = Page(page_of(moved))
    assert (page.pictures, page.kept) == ([], 8 * 3)
    assert any("No picture" in text for text in page.texts)


def test_nothing_that_an_expert_wrote_becomes_more_than_text(tmp_path):
    run = hostile_run(tmp_path / "hostile")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["ekipl"]["advantage"] = {"baseline": "selected", "std": "selected"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    source = page_of(run)
    page = Page(source)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "a", "u", "s", "i"}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert any("window.taken=1" in text for text in page.texts), "it is there, and inert"
    assert "default-src 'none'" in source, "and a browser is told to run and load nothing"


def test_runs_on_the_same_rows_from_the_same_model_stand_beside_each_other(tmp_path):
    ours = write_run(tmp_path / "ours", 0.9)
    write_run(tmp_path / "grpo", 0.4, experts=())
    write_run(tmp_path / "paper", 0.3, baseline="selected")
    write_run(tmp_path / "other-model", 0.8, model="another")
    (tmp_path / "half-made").mkdir()

    page = page_of(ours)

    assert [run.name for run in runs_beside(ours)] == ["ours", "grpo", "paper"]
    for word in ("Beside other runs", "GRPO, no experts", "the paper&#39;s advantage", "0.900", "0.400", "0.300"):
        assert word in page
    assert "other-model" not in page


def test_a_run_alone_has_nothing_beside_it(tmp_path):
    assert "Beside other runs" not in page_of(write_run(tmp_path / "ours", 0.9))


def test_a_run_that_has_not_been_evaluated_after_training_is_left_out(tmp_path):
    ours = write_run(tmp_path / "ours", 0.9)
    young = write_run(tmp_path / "young", 0.9)
    (young / "attempts/0001-from-000000.jsonl").write_text(
        json.dumps({"step": 0, "data": {"val-core/clevr/acc/mean@1": 0.25}}) + "\n"
    )
    assert [run.name for run in runs_beside(ours)] == ["ours"]


def test_a_run_is_called_by_what_is_not_the_papers():
    ours = {"experts": [{"name": "e"}], "advantage": {"baseline": "selected", "std": "all", "control": "none"}}
    assert method_of({"ekipl": ours}) == "EKIPL, baseline over selected, std over all"
    ours |= {"select": {"rule": "contrast"}, "weights": {"mode": "snis"}}
    ours["advantage"] = {"baseline": "selected", "std": "selected", "control": "imitate"}
    assert (
        method_of({"ekipl": ours})
        == "EKIPL, the paper's advantage, select.rule=contrast, weights.mode=snis, control=imitate"
    )


def test_a_folder_beside_it_that_is_no_run_of_ours_costs_no_page(tmp_path):
    ours = write_run(tmp_path / "ours", 0.9)
    for name, text in (("theirs", "model: m"), ("torn", "ekipl: {"), ("list", "[1, 2]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    assert [run.name for run in runs_beside(ours)] == ["ours"]


def test_the_standard_error_is_that_of_each_sources_own_rows(tmp_path):
    plan = Plan(**NUMBERS | {"validation_rows": 500, "validation_by_source": {"clevr": 100, "other": 400}})
    steps = RunFiles(write_run(tmp_path / "ours", 0.5)).steps()
    (row,) = score_table(steps, plan)
    assert row["after_se"] == pytest.approx(0.05)


def test_what_was_not_validated_before_or_after_is_not_made_up_from_another_step():
    row = {"val-core/clevr/acc/mean@1": 0.5}
    plan = Plan(**NUMBERS)
    before, after = (
        score_table([{"step": 0, **a}, {"step": 1}, {"step": 2, **b}], plan)[0] for a, b in ((row, {}), ({}, row))
    )
    assert (before["before"], after["after"]) == (0.5, 0.5)
    assert math.isnan(before["after"]) and math.isnan(after["before"])
    assert score_table([{"step": 1, **row}, {"step": 2}], plan) == []


@pytest.mark.parametrize("extra", [{"id": "a"}, {"index": 7}])
def test_a_row_is_found_by_its_id_or_its_index_for_every_group_that_shows_it(tmp_path, extra):
    rows = [{"question": [{"role": "user", "content": "<image>How many?"}], "extra_info": extra}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    groups = [{"row": extra.get("id", extra.get("index"))} for _ in range(2)]
    add_rows(groups, {"train_files": [str(tmp_path / "rows.parquet")], "prompt_key": "question"})
    assert [(group["question"], group["pictures"]) for group in groups] == [("How many?", [])] * 2


def test_before_and_after_are_the_first_and_the_last_step_or_nothing(tmp_path):
    steps = [
        {"step": 1, **TRAINED, "val-core/hiyouga/geometry3k/acc/mean@1": 0.5},
        {"step": 2, **TRAINED},
    ]
    summary = summarize_run(RunFiles(tmp_path), steps)
    assert (summary["accuracy_before"], summary["accuracy_after"]) == (None, None)
    steps[1]["val-core/hiyouga/geometry3k/acc/mean@1"] = 0.75
    assert summarize_run(RunFiles(tmp_path), steps)["accuracy_after"] == {"hiyouga/geometry3k": 0.75}


def test_the_result_of_a_run_names_all_that_is_promised(tmp_path):
    files = RunFiles(write_run(tmp_path / "ours", 0.9))
    promised = (
        "run_dir steps accuracy_before accuracy_after format_before format_after expert_share_first expert_share_last"
    )
    assert set(f"{promised} zero_variance seconds peak_memory_gib".split()) <= set(summarize_run(files, files.steps()))
