"""Several tasks at a time: in the order of their needs, each with its share of the cores, and ended with the program."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.lanes import Lanes, Stopped, makespan


@dataclass(frozen=True)
class Task:
    name: str
    needs: tuple[str, ...] = ()


def tasks_of(**needs: str) -> list[Task]:
    return [Task(name, tuple(wanted.split())) for name, wanted in needs.items()]


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def test_tasks_are_done_two_at_a_time_and_none_before_what_it_needs():
    lock, running, most, ended = threading.Lock(), set(), [0], []

    def work(task):
        with lock:
            running.add(task.name)
            most[0] = max(most[0], len(running))
            assert set(task.needs) - {"elsewhere"} <= set(ended)
        time.sleep(0.02)
        with lock:
            running.discard(task.name)
            ended.append(task.name)

    Lanes(2).run_all(tasks_of(a="", b="a", c="a", d="b c", e="elsewhere"), work)
    assert sorted(ended) == list("abcde")
    assert most == [2]


def test_a_task_that_fails_lets_the_one_beside_it_end_and_begins_no_other():
    failed, ended = threading.Event(), []

    def work(task):
        if task.name == "a":
            failed.set()
            raise ValueError("a failed")
        failed.wait(5)
        time.sleep(0.05)
        ended.append(task.name)

    with pytest.raises(ValueError, match="a failed"):
        Lanes(2).run_all(tasks_of(a="", b="", c="", d="a"), work)
    assert ended == ["b"]


def test_the_time_of_several_jobs_is_that_of_the_longest_way_through():
    tasks, minutes = tasks_of(a="", b="a", c="a", d="b c"), {"a": 5.0, "b": 3.0, "c": 4.0, "d": 1.0}
    assert makespan(tasks, minutes, 1) == 13.0
    assert makespan(tasks, minutes, 2) == 10.0
    assert makespan([], {}, 2) == 0.0


def test_fewer_than_one_job_is_refused():
    with pytest.raises(SettingsError, match="--jobs 0 must be 1 or more"):
        Lanes(0)


def test_a_call_tells_how_it_ended_and_its_log_what_was_called(tmp_path):
    log = tmp_path / "new" / "log"
    assert Lanes(1).call(python("import os; print(os.environ['X']); raise SystemExit(3)"), log, {"X": "address"}) == 3
    first, second = log.read_text().splitlines()
    assert first.startswith("$ -c import os") and second == "address"


@pytest.mark.parametrize(("said", "jobs", "threads"), [(None, 1, "None"), (None, 2, "share"), ("7", 2, "7")])
def test_several_at_a_time_share_the_cores_unless_the_user_has_said(tmp_path, monkeypatch, said, jobs, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    share = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    Lanes(jobs).call(python("import os; print(os.environ.get('OMP_NUM_THREADS'))"), tmp_path / "log")
    assert (tmp_path / "log").read_text().splitlines()[1] == threads.replace("share", share)


COMMAND = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
name = pathlib.Path(sys.argv[1])
try:
    name.with_suffix(".begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    if "deaf" in name.name:
        time.sleep(60)
    time.sleep(0.6)
    name.with_suffix(".closed").touch()
"""
PROGRAM = """
import signal, sys
from pathlib import Path
from recipe.ekipl.lanes import Lanes, stop_like_ctrl_c
from tests.recipe_ekipl.test_lanes import COMMAND, Task
lanes, folder = Lanes(2), Path(sys.argv[1])

def work(task):
    if task.name == "fails":
        while not list(folder.glob("*.begun")):
            pass
        (folder / "fails.begun").touch()
        raise ValueError
    lanes.call([sys.executable, "-c", COMMAND, str(folder / task.name)], folder / "log")

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started with
stop_like_ctrl_c()
lanes.run_all([Task(name) for name in sys.argv[2:]], work)
"""


def begun(folder: Path, *names: str) -> subprocess.Popen:
    """A program of two lanes with these tasks, once two of them have begun."""
    root = Path(__file__).parents[2]
    program = subprocess.Popen([*python(PROGRAM), str(folder), *names], cwd=root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.begun"))) < 2:
        assert program.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_reaches_what_is_running_gives_it_time_and_begins_nothing_more(tmp_path, number):
    """subprocess.run would kill it a quarter of a second after Ctrl-C."""
    program = begun(tmp_path, "a", "b", "c")
    program.send_signal(number)
    assert program.wait(30) != 0
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["a.begun", "a.closed", "b.begun", "b.closed"]


def test_a_stop_is_heard_while_a_task_beside_one_that_failed_comes_to_its_end(tmp_path):
    program = begun(tmp_path, "a", "fails")
    time.sleep(0.2)
    assert program.poll() is None, "it waits for the other"
    program.send_signal(signal.SIGINT)
    assert program.wait(30) != 0
    assert (tmp_path / "a.closed").exists()


def test_a_second_stop_kills(tmp_path):
    program = begun(tmp_path, "deaf-1", "deaf-2")
    program.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert program.poll() is None, "they have time to end"
    program.send_signal(signal.SIGINT)
    assert program.wait(30) != 0


def test_nothing_is_called_after_a_stop(tmp_path):
    lanes = Lanes(1)
    lanes.end()
    with pytest.raises(Stopped, match="told to stop"):
        lanes.call(python(""), tmp_path / "log")


def test_the_end_of_the_terminal_is_no_stop_under_nohup():
    code = "import signal; from recipe.ekipl.lanes import stop_like_ctrl_c; signal.signal(signal.SIGHUP, signal.SIG_IGN); stop_like_ctrl_c(); print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    assert subprocess.check_output(python(code), cwd=Path(__file__).parents[2], text=True) == "True\n"
