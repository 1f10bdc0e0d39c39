import json

from recipe.ekipl.run_files import RunFiles


def log(path, *steps):
    with open(path, "a") as file:
        for step in steps:
            file.write(json.dumps({"step": step, "data": {"loss": step * 10.0}}) + "\n")


def checkpoint(run, step):
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_a_resumed_run_counts_every_step_once(tmp_path):
    files = RunFiles(tmp_path)
    first, start = files.start_attempt()
    assert start == 0
    log(first, 0, 1, 2, 3)
    checkpoint(tmp_path, 2)  # killed after step 3, one step beyond its checkpoint
    second, start = files.start_attempt()
    assert start == 2
    assert [row["step"] for row in files.steps()] == [0, 1, 2]
    log(second, 3, 4)
    assert [row["step"] for row in files.steps()] == [0, 1, 2, 3, 4]
    files.write_metrics()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5


def test_a_torn_last_line_is_passed_over(tmp_path):
    files = RunFiles(tmp_path)
    first, _ = files.start_attempt()
    log(first, 1)
    with open(first, "a") as file:
        file.write('{"step": 2, "da')
    assert [row["step"] for row in files.steps()] == [1]


def test_validation_and_training_of_one_step_are_one_line(tmp_path):
    files = RunFiles(tmp_path)
    first, _ = files.start_attempt()
    log(first, 1)
    with open(first, "a") as file:
        file.write(json.dumps({"step": 1, "data": {"val": 0.5}}) + "\n")
    assert files.steps() == [{"step": 1, "loss": 10.0, "val": 0.5}]


def test_a_tracker_that_a_kill_left_empty_is_mended(tmp_path):
    checkpoint(tmp_path, "")
    for step in (9, 10):
        (tmp_path / "checkpoints" / f"global_step_{step}" / "actor").mkdir(parents=True)
    _, start = RunFiles(tmp_path).start_attempt()
    assert start == 10
    assert (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "10"


def test_a_stop_between_checkpoint_and_log_goes_on_one_checkpoint_earlier(tmp_path):
    """verl saves, validates, and only then logs: the step's numbers would be missing for good."""
    files = RunFiles(tmp_path)
    first, _ = files.start_attempt()
    log(first, 0, 1, 2, 3)
    for step in (2, 4):
        (tmp_path / "checkpoints" / f"global_step_{step}" / "actor").mkdir(parents=True)
    checkpoint(tmp_path, 4)
    _, start = files.start_attempt()
    assert start == 2
    assert files.last_checkpoint() == 2  # where verl looks
    assert [row["step"] for row in files.steps()] == [0, 1, 2]


def test_what_verl_leaves_of_a_checkpoint_that_it_no_longer_keeps_is_none(tmp_path):
    files = RunFiles(tmp_path)
    first, _ = files.start_attempt()
    log(first, 0, 1, 2, 3)
    for left in ("global_step_2/data.pt", "global_step_4/data.pt", "global_step_4/actor/model.pt"):
        (tmp_path / "checkpoints" / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkpoints" / left).touch()
    checkpoint(tmp_path, 4)
    assert files.start_attempt()[1] == 4


def test_what_a_step_has_cost_stays_with_it_when_it_is_done_again(tmp_path):
    files = RunFiles(tmp_path)
    for done, dollars in ((0, {1: 1.0, 2: 2.0, 3: 4.0}), (1, {2: 0.0, 3: 0.0}), (2, {3: 0.0, 4: 8.0})):
        checkpoint(tmp_path, done)
        path, start = files.start_attempt()
        assert start == done
        lines = [json.dumps({"step": step, "data": {"ekipl/dollars": spent}}) for step, spent in dollars.items()]
        path.write_text("\n".join(lines) + "\n")
    assert [row["ekipl/dollars"] for row in files.steps()] == [1.0, 2.0, 4.0, 8.0]


def test_without_an_earlier_checkpoint_nothing_is_done_again(tmp_path):
    files = RunFiles(tmp_path)
    first, _ = files.start_attempt()
    log(first, 0, 1)
    (tmp_path / "checkpoints" / "global_step_2" / "actor").mkdir(parents=True)
    checkpoint(tmp_path, 2)
    assert files.start_attempt()[1] == 2
