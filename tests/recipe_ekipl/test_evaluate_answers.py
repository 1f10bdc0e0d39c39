"""Answers in batches and on disk: nothing is asked twice, and a kill costs at most a batch."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.answers import AnswerFile
from recipe.ekipl.evaluate.ask import batches
from recipe.ekipl.evaluate.asked import claim_folder, model_digest
from recipe.ekipl.evaluate.rows import EvalSplit
from tests.recipe_ekipl.evaluate_helpers import BatchDependent, evaluate_into, write_rows


@given(rows=st.integers(1, 40), samples=st.integers(1, 20), size=st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_batches_hold_every_answer_once_and_none_is_too_large(rows, samples, size):
    found = list(batches(list(range(rows)), samples, size))
    wanted = [one for batch in found for one in batch]
    assert sorted(wanted) == [(row, sample) for row in range(rows) for sample in range(samples)]
    assert max(map(len, found)) <= size


@pytest.fixture
def split(tmp_path) -> EvalSplit:
    return write_rows(tmp_path / "rows.parquet", *[{}] * 7)


@pytest.mark.parametrize("samples", [1, 3, 9])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_stopped_and_resumed_gives_the_same_file_as_one_pass(tmp_path, split, samples, stop_after):
    evaluate_into(tmp_path / "one", split, BatchDependent(), samples, size=2)
    stops = 0
    while not (tmp_path / "two/answers.jsonl").exists():
        with contextlib.suppress(KeyboardInterrupt):
            stops += 1
            evaluate_into(tmp_path / "two", split, BatchDependent(stop_after=stop_after), samples, size=2)
    assert stops > 1
    assert (tmp_path / "two/answers.jsonl").read_bytes() == (tmp_path / "one/answers.jsonl").read_bytes()
    assert len((tmp_path / "two/answers.jsonl").read_text().splitlines()) == 7 * samples
    assert not (tmp_path / "two/answers.partial.jsonl").exists()


def test_a_batch_that_a_kill_tore_is_asked_for_again_as_a_whole(tmp_path, split):
    evaluate_into(tmp_path / "one", split, BatchDependent())
    with pytest.raises(KeyboardInterrupt):
        evaluate_into(tmp_path / "two", split, BatchDependent(stop_after=3))
    partial = tmp_path / "two/answers.partial.jsonl"
    whole = partial.read_bytes()
    for cut in (1, 7, len(whole.splitlines()[-1])):  # within the last line
        partial.write_bytes(whole[:-cut])
        again = BatchDependent()
        evaluate_into(tmp_path / "two", split, again)
        assert again.calls == 7 - 2
        assert (tmp_path / "two/answers.jsonl").read_bytes() == (tmp_path / "one/answers.jsonl").read_bytes()
        (tmp_path / "two/answers.jsonl").unlink()


def test_what_is_answered_is_not_asked_for_again(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent())
    second = BatchDependent()
    evaluate_into(tmp_path / "a", split, second)
    assert second.calls == 0


def test_more_samples_keep_those_that_are_there(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent(), samples=2)
    before = (tmp_path / "a/answers.jsonl").read_text().splitlines()
    evaluate_into(tmp_path / "a", split, BatchDependent(), samples=5)
    after = (tmp_path / "a/answers.jsonl").read_text().splitlines()
    assert len(after) == 7 * 5
    assert set(before) < set(after)


def test_answers_to_a_row_that_has_changed_are_asked_for_again(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent())
    other = {"prompt": [{"role": "user", "content": "<image>How many cubes?"}]}
    changed = write_rows(split.path, *[{}] * 6, other)
    file = evaluate_into(tmp_path / "a", changed, again := BatchDependent())
    assert (again.calls, file.outdated) == (1, 3)
    assert len((tmp_path / "a/answers.jsonl").read_text().splitlines()) == 21


def test_looking_at_answers_changes_no_file(tmp_path, split):
    with pytest.raises(KeyboardInterrupt):
        evaluate_into(tmp_path / "a", split, BatchDependent(stop_after=2))
    partial = tmp_path / "a/answers.partial.jsonl"
    partial.write_bytes(partial.read_bytes() + b'[{"row": "r6", "sa')
    before = partial.read_bytes()
    AnswerFile(tmp_path / "a", {"r0": "x"})
    assert partial.read_bytes() == before


def test_a_damaged_line_is_an_error_and_not_a_loss(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent())
    answers = tmp_path / "a/answers.jsonl"
    answers.write_text("{]\n" + answers.read_text())
    with pytest.raises(SettingsError, match=r"answers.jsonl, line 1 is no JSON"):
        evaluate_into(tmp_path / "a", split, BatchDependent())


def test_answers_that_did_not_come_are_asked_for_next_time(tmp_path, split):
    class Unreliable(BatchDependent):
        def answer(self, wanted):
            return [
                None if row.id == "r3" else given
                for (row, _), given in zip(wanted, super().answer(wanted), strict=True)
            ]

    evaluate_into(tmp_path / "a", split, Unreliable())
    assert not (tmp_path / "a/answers.jsonl").exists()
    evaluate_into(tmp_path / "a", split, again := BatchDependent())
    assert again.calls == 1
    assert len((tmp_path / "a/answers.jsonl").read_text().splitlines()) == 21


KILLED = """
import sys
from pathlib import Path
from recipe.ekipl.evaluate.rows import EvalSplit
from tests.recipe_ekipl.evaluate_helpers import BatchDependent, evaluate_into
evaluate_into(Path(sys.argv[2]), EvalSplit("own", Path(sys.argv[1])), BatchDependent(slow=0.02), samples=20)
"""


def test_a_process_killed_with_sigkill_loses_at_most_its_last_batch(tmp_path, split):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(split.path), str(folder)], env=os.environ)
    partial = folder / "answers.partial.jsonl"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = partial.read_bytes().count(b"\n")
    evaluate_into(folder, split, again := BatchDependent(), samples=20)
    evaluate_into(tmp_path / "one", split, whole := BatchDependent(), samples=20)
    assert again.calls == whole.calls - there
    assert (folder / "answers.jsonl").read_bytes() == (tmp_path / "one/answers.jsonl").read_bytes()


def test_a_folder_with_the_answers_of_another_evaluation_is_refused(tmp_path):
    asked = {"model": "abc", "temperature": 0.0}
    claim_folder(tmp_path, asked, {})
    claim_folder(tmp_path, asked, {"batch": 7})
    with pytest.raises(SettingsError, match=r"temperature was 0.0 and is now 1.0"):
        claim_folder(tmp_path, {**asked, "temperature": 1.0}, {})


def test_a_model_is_known_by_its_content_and_not_by_its_place(tmp_path):
    for name, weights in (("a", b"123"), ("b", b"123"), ("c", b"124")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    same, copy, other = (model_digest(tmp_path / name) for name in "abc")
    assert same == copy != other
