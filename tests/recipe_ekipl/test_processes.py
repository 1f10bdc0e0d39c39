import os
import subprocess
import sys
import time

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.processes import MARK, memory_gib, only_driver, processes_of, resident_gib
from recipe.ekipl.tiny.serving import ServerError, serving

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def start(run_dir):
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        env={**os.environ, MARK: str(run_dir)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.readline()
    return process


def test_what_a_killed_driver_left_behind_is_ended_before_the_next_one_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("recipe.ekipl.processes.GRACE_SECONDS", 0.2)
    left, other = start(tmp_path / "run"), start(tmp_path / "other")
    assert processes_of(tmp_path / "run") == [left.pid]
    with only_driver(tmp_path / "run"):
        assert left.wait(5) != 0
        assert other.poll() is None
    other.kill()
    other.wait(5)


def test_memory_is_that_of_the_runs_processes_and_counts_what_they_share_once(tmp_path):
    before = memory_gib(tmp_path), resident_gib(tmp_path)
    code = "import time; block = bytearray(200 * 2**20); print('up', flush=True); time.sleep(60)"
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, MARK: str(tmp_path)}, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    grown = [now - then for now, then in zip((memory_gib(tmp_path), resident_gib(tmp_path)), before, strict=True)]
    holder.kill()
    holder.wait(5)
    assert all(0.19 < gib < 0.25 for gib in grown)
    assert before[0] <= before[1], "this process shares pages with others"


def test_a_run_folder_has_one_driver(tmp_path):
    script = f"import pathlib, time; from recipe.ekipl.processes import only_driver\nwith only_driver(pathlib.Path({str(tmp_path)!r})): print('up', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(SettingsError, match="another process"), only_driver(tmp_path):
        pass
    holder.kill()
    holder.wait(5)
    time.sleep(0.05)
    with only_driver(tmp_path):
        pass


def test_a_server_that_ends_before_it_can_be_asked_is_explained_by_its_own_words(tmp_path):
    server = serving("json.tool", ready=tmp_path / "url", log=tmp_path / "log")
    with pytest.raises(ServerError, match="(?s)was not ready.*usage: python -m json.tool"), server:
        pass
