"""python -m ekipl_reward"""

import io
import json

import pytest

from ekipl_reward.__main__ import main

RIGHT = "<think>5-2</think><answer>3.0</answer>"


def run(capsys, *arguments):
    try:
        status = main(list(arguments))
    except SystemExit as exit_:
        status = exit_.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_it_says_what_was_extracted_which_rule_fired_and_what_each_part_gave(capsys):
    status, out, _ = run(capsys, RIGHT, "--truth", "3", "--task", "clevr_math")
    assert status == 0
    for part in ("visual_counting", "'3.0'", "3; truth 3", "same_number", "2 = 1 x 1 + 1 x 1", "evaluation   1"):
        assert part in out


def test_a_missed_format_says_why(capsys):
    _, out, _ = run(capsys, "so <think>a</think><answer>3</answer>", "--truth", "3", "--task", "clevr_math")
    assert "it does not begin with <think>" in out


def test_every_paired_call_is_shown(capsys):
    answer = "<think>a</think><answer>change_color(0, red) change_shape(1, cube)</answer>"
    _, out, _ = run(capsys, answer, "--truth", "change_color(0, blue)", "--task", "trance")
    assert "change_color(0, red) for change_color(0, blue): 0.5" in out
    assert "2 calls, truth 1: divided by 2" in out


def test_compare_shows_both_rules_and_marks_what_differs(capsys):
    _, out, _ = run(capsys, RIGHT, "--truth", "3", "--task", "clevr_math", "--compare")
    accuracy = next(line for line in out.splitlines() if line.startswith("accuracy"))
    assert accuracy.split() == ["accuracy", "*", "1", "|", "0"]


def test_the_response_can_come_from_standard_input(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(RIGHT))
    assert "same_number" in run(capsys, "-", "--truth", "3", "--task", "clevr_math")[1]


def test_options_are_those_of_training(capsys):
    _, out, _ = run(capsys, RIGHT, "--truth", "3", "--task", "clevr_math", "--set", "format_weight=0.5", "--json")
    assert json.loads(out)[0]["score"] == 1.5


def test_a_file_of_rows_gets_a_line_each_means_and_a_line_of_json(capsys, tmp_path):
    rows = [
        {"data_source": "clevr_math", "response": RIGHT, "ground_truth": "3"},
        {"data_source": "trance", "solution_str": "x", "truth": "change_size(0, small)"},
        {"pred": RIGHT, "answer": "4"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    status, out, _ = run(capsys, "--rows", str(file), "--task", "super-clevr")
    assert status == 0
    last = json.loads(out.splitlines()[-1])
    assert (last["rows"], last["not_judged"]) == (3, 0)
    assert {mean["task"]: (mean["rows"], mean["score"]) for mean in last["means"]} == {
        "visual_counting": (2, 1.5),
        "spatial_transformation": (1, 0.0),
    }


def test_rows_that_cannot_be_judged_are_named_and_the_rest_is_judged(capsys, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        '{"task": "clevr_math", "response": "x", "truth": "three"}\nnot json\n[1]\n{"response": "x"}\n'
        '{"task": "imagenet", "response": "x", "truth": "3"}\n{"task": "clevr_math", "response": null, "truth": "3"}\n'
    )
    status, out, err = run(capsys, "--rows", str(file), "--compare")
    assert status == 1
    assert json.loads(out.splitlines()[-1])["not_judged"] == 5
    for place, says in enumerate(
        ["a count must be a number", "not JSON", "not an object", "has no ground truth", "data_source"], 1
    ):
        assert any(f"line {place}:" in line and says in line for line in err.splitlines())


def test_a_json_array_as_reason_rfts_evaluation_leaves_it_is_read_too(capsys, tmp_path):
    file = tmp_path / "clevr-math.json"
    file.write_text(json.dumps([{"pred": RIGHT, "answer": "3", "id": 1}]))
    status, out, _ = run(capsys, "--rows", str(file), "--task", "clevr_math", "--rules", "released", "--json")
    assert status == 0
    assert json.loads(out.splitlines()[0])["judged"][0]["evaluation"] == 1.0
    file.write_text("[1, 2")
    assert run(capsys, "--rows", str(file), "--task", "clevr_math")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), 2, "give either a response or --rows"),
        (("x", "--rows", "y"), 2, "give either a response or --rows"),
        (("x", "--truth", "3", "--task", "clevr_math", "--set", "fomat_weight=1"), 2, "Did you mean format_weight"),
        (("x", "--truth", "3", "--task", "clevr_math", "--set", "format_weight"), 2, "option=value"),
        (("x", "--truth", "3", "--task", "clevr_math", "--task-module", "no_lab"), 2, "cannot be imported"),
        (("--rows", "/nowhere.jsonl"), 2, "/nowhere.jsonl"),
        (("x", "--task", "clevr_math"), 1, "no ground truth"),
        (("x", "--truth", "3"), 1, "no task"),
        (("x", "--truth", "three", "--task", "clevr_math"), 1, "a count must be a number"),
        (("x", "--truth", "3", "--task", "imagenet"), 1, "clevr_math, super_clevr"),
    ],
)
def test_what_cannot_work_says_why_and_has_its_exit_status(capsys, arguments, status, says):
    found, _, err = run(capsys, *arguments)
    assert found == status
    assert says in err
    assert "Traceback" not in err
