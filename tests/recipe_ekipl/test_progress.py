"""What a person sees while a run trains."""

import io
import json
import os
import time

import pytest

from recipe.ekipl.progress import Progress, quiet
from recipe.ekipl.run_files import RunFiles

TRAINED = {
    "ekipl/groups/count": 4.0,
    "ekipl/policy/accuracy": 0.25,
    "ekipl/expert_share": 0.5,
    "ekipl/groups/silent": 0.125,
    "ekipl/dollars": 0.75,
}


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A function: lines of verl's file logger -> what stands on the terminal after them."""
    terminal = io.StringIO()
    monkeypatch.setattr(Progress, "terminal", terminal)
    monkeypatch.setattr("recipe.ekipl.progress.LOG_SECONDS", 0.0)

    def show(*rows: tuple[int, dict], start: int = 0, total: int = 10) -> str:
        attempt = tmp_path / "attempt.jsonl"
        attempt.touch()
        with Progress(RunFiles(tmp_path), attempt, start, total), open(attempt, "a") as file:
            for step, data in rows:
                line = json.dumps({"step": step, "data": data}) + "\n"
                file.write(line[:20])  # the logger is read while it writes
                file.flush()
                time.sleep(0.01)
                file.write(line[20:])
                file.flush()
        return terminal.getvalue()

    return show


def test_the_bar_tells_step_accuracy_expert_share_silence_and_money(shown):
    seen = shown((1, TRAINED), (2, TRAINED))
    assert "2/10" in seen
    for word in ("acc=0.25", "experts=50%", "silent=12%", "paid=$1.50"):
        assert word in seen


def test_where_there_is_a_budget_the_ledger_tells_what_was_paid_and_what_is_left(shown):
    seen = shown((1, {**TRAINED, "ekipl/budget/spent": 3.0, "ekipl/budget/left": 1.0, "ekipl/experts_resting": 1.0}))
    assert "paid=$3.00 ($1.00 left)" in seen
    assert "resting=1" in seen


def test_a_validation_is_told_in_a_line_of_its_own(shown):
    seen = shown((0, {"val-core/clevr_math/acc/mean@1": 0.5}), (1, TRAINED))
    assert "step 0: held-out accuracy clevr_math 0.500" in seen


def test_a_run_that_goes_on_starts_where_it_stopped(shown):
    assert "6/10" in shown((6, TRAINED), start=5)


def test_what_processes_print_goes_to_the_log_and_comes_back_to_the_terminal_afterwards(tmp_path, capfd):
    with quiet(tmp_path / "logs" / "train.log", verbose=False):
        os.write(1, b"from a child\n")
        os.write(2, b"a warning\n")
        print("shown", file=Progress.terminal)
    print("afterwards")
    assert (tmp_path / "logs" / "train.log").read_text() == "from a child\na warning\n"
    out, err = capfd.readouterr()
    assert (out, err) == ("afterwards\n", "shown\n")
