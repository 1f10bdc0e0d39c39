"""Ray 2.56 and multiprocessing take a forked process for the interpreter they asked for."""

import multiprocessing
import multiprocessing.spawn
import os
import signal
import subprocess
import sys
import time

import pytest

from recipe.ekipl.cpu.warm_start import INTERPRETER, warm_python
from recipe.ekipl.processes import MARK, processes_of

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    before = os.environ.get("VERL_PLATFORM")
    os.environ["VERL_PLATFORM"] = "cpu"
    with warm_python({MARK: str(run_dir)}, preload=["ray", "numpy"]) as executable:
        yield executable
    if before is None:
        del os.environ["VERL_PLATFORM"]
    assert processes_of(run_dir) == [], "a process was left behind"


def run(python, code, *arguments, **options):
    return subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, timeout=60, **options)


def test_a_fork_has_the_arguments_environment_folder_and_exit_status_that_were_asked_for(python, tmp_path):
    code = (
        "import os, sys; print(sys.argv[1:], os.environ['FOO'], os.getcwd()); print('x', file=sys.stderr); sys.exit(7)"
    )
    ended = run(python, code, "a", "b c", env={**os.environ, "FOO": "bär"}, cwd=tmp_path)
    assert ended.stdout == f"['a', 'b c'] bär {tmp_path}\n"
    assert (ended.stderr, ended.returncode) == ("x\n", 7)


def test_what_is_preloaded_is_there_at_once_and_random_states_are_not_shared(python):
    code = "import sys; assert 'ray' in sys.modules; import numpy, random; print(numpy.random.rand(), random.random())"
    assert run(python, code).stdout != run(python, code).stdout


def test_a_signal_to_the_stand_in_reaches_the_fork_and_its_death_comes_back(python):
    sleeper = "import time; print('up', flush=True); time.sleep(60)"
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen([python, "-c", sleeper], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == -number
        assert process.stdout.read() == "", "the fork still holds the pipe"


def test_a_script_sees_its_own_folder_first(python, tmp_path):
    (tmp_path / "neighbour.py").write_text("WORD = 'found'")
    (tmp_path / "script.py").write_text("import neighbour, sys; print(neighbour.WORD, __name__, sys.argv)")
    ended = subprocess.run([python, "-u", str(tmp_path / "script.py"), "1"], capture_output=True, text=True, timeout=60)
    assert ended.stdout == f"found __main__ ['{tmp_path / 'script.py'}', '1']\n"


def send_pid(pipe):
    pipe.send((os.getpid(), os.environ.get(INTERPRETER) is not None, multiprocessing.spawn.get_executable()))


def test_multiprocessing_spawns_through_it_and_so_do_its_children(python, monkeypatch):
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(python))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=send_pid, args=(there,))
    process.start()
    pid, _, executable = here.recv()
    process.join(timeout=20)
    assert pid != process.pid, "the stand-in has another pid than the fork"
    assert os.fsdecode(executable) == python
    assert process.exitcode == 0


def test_a_ray_actor_lives_in_a_fork(python):
    script = f"""
import os, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
         runtime_env={{"py_executable": {python!r}, "env_vars": {{"FOO": "bar"}}}})
@ray.remote
class Actor:
    def where(self):
        return open(f"/proc/{{os.getpid()}}/cmdline").read(), os.environ["FOO"], os.environ["RAY_JOB_ID"]
print(ray.get(Actor.remote().where.remote(), timeout=60))
"""
    # its own driver: the fork's RAY_RAYLET_PID is this process's, which outlives it
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "'bar', '01000000'" in ended.stdout, ended.stdout + ended.stderr


def test_an_actor_that_ends_takes_no_other_with_it(python):
    """Ray ends the process group of a worker that is gone, 0.2 s later."""
    script = f"""
import ray, time
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={{"py_executable": {python!r}}})
@ray.remote(num_cpus=0)
class Actor:
    def ready(self):
        return "alive"
first, second = Actor.remote(), Actor.remote()
ray.get([first.ready.remote(), second.ready.remote()], timeout=60)
ray.kill(first)
time.sleep(2)
print(ray.get(second.ready.remote(), timeout=60))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.stdout.endswith("alive\n"), ended.stdout + ended.stderr
    assert run(python, "print('more')").stdout == "more\n"


def test_without_anybody_to_ask_it_is_the_interpreter_itself(tmp_path):
    from pathlib import Path

    import recipe.ekipl.cpu.warm_python as client

    words = [sys.executable, "-I", "-S", str(Path(client.__file__)), sys.executable, str(tmp_path / "nobody")]
    ended = subprocess.run([*words, "-c", "print('alone')"], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "alone\n"


def test_forks_end_with_the_process_they_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    with warm_python({MARK: str(tmp_path)}, preload=["json"]) as executable:
        process = subprocess.Popen([executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=-1)
        process.stdout.readline()
        os.kill(min(processes_of(tmp_path)), signal.SIGKILL)  # the oldest: where the fork came from
        assert process.wait(timeout=10) == -signal.SIGKILL
        deadline = time.monotonic() + 5
        while processes_of(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes_of(tmp_path) == []
