"""The viewer without a browser: what it answers, and that nothing of it can run or leave."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from ekipl_rollout.answer import Candidate, Selection
from ekipl_rollout.errors import SettingsError
from ekipl_rollout.group_files import GroupWriter, group_paths, write_learned
from recipe.ekipl.view.__main__ import main
from recipe.ekipl.view.answers import Answers
from recipe.ekipl.view.diff import marked
from recipe.ekipl.view.server import PAGE, make_app
from tests.recipe_ekipl.demo_run import held_out_rows, kept_evaluations, rows_of, write_evaluation, write_run

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\ud800"


@pytest.fixture(scope="session")
def demo(world, tmp_path_factory) -> Path:
    """A run of 3 steps x 4 groups and two evaluations of it."""
    root = tmp_path_factory.mktemp("demo")
    rows = rows_of(world, root / "data", 12)
    run = write_run(root / "runs" / "demo", root / "data", rows, steps=3, groups=4)
    write_evaluation(run / "evaluations" / "step-100-greedy", 1.0, 100, held_out_rows(6))
    write_evaluation(run / "evaluations" / "step-25-greedy", 0.3, 25, held_out_rows(6))
    return run


@pytest.fixture
def answers(demo) -> Answers:
    return Answers([str(demo.parent)])


def small_run(folder: Path, texts: list[str], scores: list[float], **ekipl) -> Path:
    """One group; the second half of its answers is dropped."""
    kept = len(texts) // 2
    config = {"ekipl": {"experts": [{"name": "gpt-4o"}], **ekipl}, "actor_rollout_ref": {"rollout": {"n": kept}}}
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "attempts").mkdir(exist_ok=True)
    made = [
        Candidate("policy" if i % 2 else "gpt-4o", i, score, {"accuracy": score}, 3, text)
        for i, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    selection = Selection(made[:kept], [(candidate, "lower_reward") for candidate in made[kept:]])
    GroupWriter(folder).write(1, {"uid": "u/1", "row": "r", "data_source": "clevr_math", "truth": "3"}, selection)
    return folder


def only_group(folder: Path) -> dict:
    return Answers([str(folder)]).get("runs/0/groups/1/u/1")


def test_a_run_is_opened_without_reading_its_groups(demo, answers, monkeypatch):
    monkeypatch.setattr("recipe.ekipl.view.run.read_groups", lambda path: pytest.fail(f"read {path}"))
    run = answers.get("start")["runs"][0]
    assert (run["name"], run["groups"], run["last_step"]) == ("demo", [1, 2, 3], 3)
    assert run["sources"] == ["policy", "gpt-4o", "gemini"]
    accuracy = next(chart for chart in answers.get("runs/0/curves") if chart["title"].startswith("Accuracy of each"))
    assert accuracy["x"] == [1, 2, 3]
    assert accuracy["names"] == ["policy", "gpt-4o", "gemini"]


def test_a_group_comes_with_its_picture_and_all_answers(answers):
    listed = answers.get("runs/0/groups/2")
    assert len(listed) == 4
    group = answers.get(f"runs/0/groups/2/{listed[0]['uid']}")
    assert len(group["answers"]) == 24
    assert {answer["source"] for answer in group["answers"]} == {"policy", "gpt-4o", "gemini"}
    assert sum(answer["kept"] for answer in group["answers"]) == 8
    assert all(answer["dropped"] in ("lost_a_tie", "lower_reward") for answer in group["answers"] if not answer["kept"])
    assert group["pictures"][0].startswith("data:image/png;base64,")
    assert "<image>" not in group["question"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"baseline": "selected", "std": "selected"}, [0.5 / 0.7071078, -0.5 / 0.7071078]),
        ({"baseline": "all", "std": "none"}, [0.75, -0.25]),
        ({"baseline": "all", "std": "all"}, [1.5, -0.5]),
    ],
)
def test_advantages_are_those_of_training(tmp_path, rule, expected):
    run = small_run(tmp_path, ["a", "b", "c", "d"], [1.0, 0.0, 0.0, 0.0], advantage=rule)
    kept = [answer["advantage"] for answer in only_group(run)["answers"] if answer["kept"]]
    assert kept == pytest.approx(expected, abs=1e-5)
    assert [answer["advantage"] for answer in only_group(run)["answers"] if not answer["kept"]] == [None, None]


def test_advantages_and_weights_are_those_of_the_update_once_it_has_run(tmp_path):
    run = small_run(tmp_path, ["a", "b", "c", "d"], [1.0, 0.0, 0.0, 0.0])
    write_learned(run, 1, [("u/1", "0", 0.25, 0.5), ("u/1", "1", 0.0, 1.0), ("another", "0", 9.0, 9.0)])
    answers = only_group(run)["answers"]
    assert [(answer["advantage"], answer["weight"]) for answer in answers[:2]] == [(0.25, 0.5), (0.0, 1.0)]
    assert answers[2]["advantage"] is None


def test_groups_of_a_run_without_a_config_are_shown(tmp_path):
    run = small_run(tmp_path, ["a", "b"], [1.0, 0.0])
    (run / "config.yaml").unlink()
    (run / "attempts").rmdir()
    first = only_group(run)["answers"][0]
    assert (first["advantage"], first["weight"]) == (None, None)  # nothing says how they were made
    assert Answers([str(run)]).get("runs/0")["sources"] == ["policy", "gpt-4o"]


def test_weights_that_were_not_written_are_unknown_and_not_one(tmp_path):
    weighted = only_group(small_run(tmp_path / "weighted", ["a", "b"], [1.0, 0.0], weights={"mode": "snis"}))
    plain = only_group(small_run(tmp_path / "plain", ["a", "b"], [1.0, 0.0]))
    assert [group["answers"][0]["weight"] for group in (weighted, plain)] == [None, 1.0]


def test_a_reward_that_is_no_number_is_shown_as_none(tmp_path, serve):
    run = small_run(tmp_path, ["a", "b", "c", "d"], [1.0, float("nan"), 0.0, 0.0])
    url = serve(make_app(Answers([str(run)])))
    (listed,) = httpx.get(url + "/api/runs/0/groups/1").json()
    assert None in [answer[1] for answer in listed["answers"]]
    assert httpx.get(url + "/api/runs/0/groups/1/u%2F1").status_code == 200


@pytest.mark.parametrize("size", [None, (20_000, 20_000)], ids=["broken", "enormous"])
def test_a_picture_that_cannot_be_shown_costs_only_itself(tmp_path, size):
    content = io.BytesIO(b"\x89PNG\r\n\x1a\nno more")
    if size:
        Image.new("1", size).save(content, "PNG")
    row = {"prompt": [{"role": "user", "content": "<image>?"}], "images": [{"bytes": content.getvalue()}]}
    pq.write_table(pa.Table.from_pylist([{**row, "extra_info": {"id": "r"}}]), tmp_path / "rows.parquet")
    run = small_run(tmp_path / "run", ["a", "b"], [1.0, 0.0])
    group = Answers([str(run)], data=tmp_path).get("runs/0/groups/1/u/1")
    assert len(group["answers"]) == 2
    assert group["pictures"] == [] and "rows.parquet: " in group["missing"]


def test_outcomes_say_who_was_right(tmp_path):
    # even places are the expert's: right and kept; the policy is wrong everywhere
    (rescued,) = Answers([str(small_run(tmp_path / "a", list("abcd"), [1.0, 0.0, 0.5, 0.0]))]).get("runs/0/groups/1")
    (silent,) = Answers([str(small_run(tmp_path / "b", list("abcd"), [0.5] * 4))]).get("runs/0/groups/1")
    assert rescued["outcomes"] == ["policy_never", "rescued"]
    assert silent["outcomes"] == ["policy_never", "nobody", "silent"]


def test_a_run_that_goes_on_writing_shows_its_new_groups(demo, tmp_path):
    run = small_run(tmp_path / "run", ["a", "b"], [1.0, 0.0])
    answers = Answers([str(run)])
    assert len(answers.get("runs/0/groups/1")) == 1
    small_run(run, ["c", "d"], [1.0, 0.0])  # another process
    assert len(answers.get("runs/0/groups/1")) == 2
    with open(group_paths(run)[0][1], "ab") as torn:
        torn.write(b"\x1f\x8b\x08torn")
    assert len(answers.get("runs/0/groups/1")) == 2
    for _, path in group_paths(run):
        path.unlink()  # a resumed run does it again
    assert answers.get("runs/0/groups/1") == []
    assert answers.get("runs/0")["groups"] == []


def test_a_run_that_begins_later_is_found_and_nobody_changes_places(tmp_path):
    small_run(tmp_path / "late", ["a", "b"], [1.0, 0.0])
    answers = Answers([str(tmp_path)])
    small_run(tmp_path / "early", ["a", "b"], [1.0, 0.0])
    assert [run["name"] for run in answers.get("start")["runs"]] == ["late", "early"]


def test_two_checkpoints_are_compared_on_each_row(answers):
    names = [one["name"] for one in answers.get("start")["evaluations"]]
    assert names == ["demo step-25-greedy", "demo step-100-greedy"]
    found = answers.get("diff/0/1/clevr_math")
    assert len(found["rows"]) == found["comparison"]["rows"] == 6
    better = next(row for row in found["rows"] if row[3] > row[2])
    both = answers.get(f"diff/0/1/clevr_math/{better[0]}")
    assert [side[0]["score"] for side in both["sides"]] == [0.0, 1.0]
    assert "only" in {mark for _, mark in both["sides"][1][0]["pieces"]}
    assert both["pictures"]


def test_kept_evaluations_without_texts_are_compared_by_their_scores(tmp_path):
    kept = kept_evaluations(tmp_path)
    assert not list(kept.rglob("answers*"))
    answers = Answers([str(kept), str(tmp_path / "made-100")])
    places = {one["folder"].removeprefix(str(tmp_path)): i for i, one in enumerate(answers.get("start")["evaluations"])}
    first, second, whole = (
        places[f"/{name}/evaluations/final"] for name in ("kept/ekipl-25", "kept/ekipl-100", "made-100")
    )
    found = answers.get(f"diff/{first}/{second}/clevr_math")
    better = next(row for row in found["rows"] if row[3] > row[2])
    both = answers.get(f"diff/{first}/{second}/clevr_math/{better[0]}")
    assert [[answer["pieces"] for answer in side] for side in both["sides"]] == [[None, None]] * 2
    assert [sum(answer["score"] for answer in side) / 2 for side in both["sides"]] == better[2:]
    half = answers.get(f"diff/{first}/{whole}/clevr_math/{better[0]}")["sides"]
    assert half[0][0]["pieces"] is None and [mark for _, mark in half[1][0]["pieces"]] == [""]


def test_marks_lose_no_character():
    first, second = "<think> I see 3\n\tcubes </think>", EVIL
    for text, pieces in zip((first, second), marked(first, second), strict=True):
        assert "".join(piece for piece, _ in pieces) == text
    assert marked("same words", "same words")[0] == [["same words", ""]]


@pytest.mark.parametrize("path", ["", "runs/7", "runs/-1", "runs/x", "runs/0/groups/1/none", "diff/0/9/trance", "../x"])
def test_what_is_not_there_is_no_error(answers, path):
    assert answers.get(path) is None


def test_a_folder_without_anything_says_what_to_give(tmp_path, capsys):
    with pytest.raises(SettingsError, match="holds no run and no evaluation"):
        Answers([str(tmp_path)])
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_looking_needs_nothing_that_training_needs():
    code = (
        "import sys, recipe.ekipl.view.answers, recipe.ekipl.view.server, recipe.ekipl.view.export\n"
        "print([name for name in ('torch', 'verl', 'vllm', 'ray', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# ---- untrusted text


def test_the_server_lets_a_page_run_nothing_but_its_own_files(answers, serve):
    url = serve(make_app(answers))
    for path in ("/", "/api/start", "/page/app.js", "/api/none", "/page/none"):
        headers = httpx.get(url + path).headers
        rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert httpx.get(url + "/api/start").headers["content-type"] == "application/json"


def test_another_name_for_this_machine_is_refused(answers, serve):
    url = serve(make_app(answers))
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "2130706433", "0.0.0.0", ""):
        assert httpx.get(url + "/api/start", headers={"host": host}).status_code == 400, host
    assert httpx.get(url + "/api/start", headers={"host": "localhost:1"}).status_code == 200


def test_files_beside_the_page_cannot_be_reached(answers, serve):
    url = serve(make_app(answers))
    for path in ("/page/../server.py", "/page/%2e%2e/server.py", "/page//etc/passwd", "/api/..%2f..%2fconfig.yaml"):
        assert httpx.get(url + path).status_code in (400, 404)


def test_hostile_text_arrives_as_json_and_unchanged(tmp_path, serve):
    url = serve(make_app(Answers([str(small_run(tmp_path, [EVIL, "b"], [1.0, 0.0]))])))
    reply = httpx.get(url + "/api/runs/0/groups/1/u%2F1")
    assert reply.headers["content-type"] == "application/json"
    assert json.loads(reply.content)["answers"][0]["text"] == EVIL


def test_no_text_can_leave_its_place_in_an_export(tmp_path, capsys):
    run = small_run(tmp_path / "run", [EVIL, "b"], [1.0, 0.0])
    out = tmp_path / "out.html"
    assert main([str(run), "--export", str(out)]) == 0
    page = out.read_text()
    data = re.search(r'<script type="application/json" id="exported">(.*?)</script>', page)[1]
    assert "<" not in data
    assert json.loads(data)["runs/0/groups/1/u%2F1"]["answers"][0]["text"] == EVIL
    assert "taken" not in page.replace(data, "")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_the_scripts_of_an_export_are_those_that_its_policy_names(demo, tmp_path):
    out = tmp_path / "out.html"
    main([str(demo), "--export", str(out), "--groups", "4", "--rows", "2"])
    page = out.read_text()
    assert page.count("Permission is hereby granted") == page.count("-->") == 1  # the licences of what is in it
    named = set(re.findall(r"'sha256-([^']+)'", page.split("<title>")[0]))
    inline = re.findall(r"<(script|style)>(.*?)</\1>", page, re.S)
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in inline} == named
    held = json.loads(re.search(r'id="exported">(.*?)</script>', page)[1])
    assert held["start"]["runs"][0]["groups"] == [3]  # 4 groups are one whole step, the newest
    assert len(held["diff/0/1/clevr_math"]["rows"]) == 2


def test_the_page_makes_no_html_from_text():
    own = list(PAGE.glob("*.js"))
    assert len(own) > 5
    for path in own:
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|dangerously|document\.write|\beval\b|Function\(", path.read_text()
        )


def test_vendored_files_are_the_pinned_ones():
    folder = PAGE / "vendor"
    pinned = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.[jc]s*")}
    assert found == pinned
