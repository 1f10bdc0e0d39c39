"""The helper process that compares expressions: bounds, threads, forks, ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ekipl_reward import HelperError, symbolic

PAIRS = [
    ("5\\sqrt2", "5\\sqrt{2}"),
    ("7.07", "5\\sqrt{2}"),
    ("12π", "12\\pi"),
    ("2 or 3", "3"),
    ("x^2+2x+1", "(x+1)^2"),
    ("\\frac{1}{0}", "5"),
    ("9^{9^{9^{9}}}", "5"),
    ("}{", "5"),
]


def verdicts() -> list[tuple]:
    """Of all pairs, asked afresh."""
    symbolic._asked.cache_clear()
    compared = [symbolic.compare(answer, truth) for answer, truth in PAIRS]
    return [*map(tuple, compared), tuple(symbolic.verify("so it is 3", "3")), tuple(symbolic.verify("A or B", "A"))]


@pytest.fixture(scope="module")
def expected():
    return verdicts()


def test_eight_threads_see_what_the_main_thread_sees(expected):
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: verdicts(), range(8))) == [expected] * 8


def in_child(queue):
    queue.put(verdicts())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_another_process_sees_the_same_with_a_helper_of_its_own(expected, method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(timeout=10)
    assert child.exitcode == 0
    assert verdicts() == expected  # the child has left our helper alone


def test_an_import_path_that_is_not_in_the_environment_reaches_the_helper(expected, tmp_path):
    """As in a Ray worker: the package is found through sys.path alone, from another folder."""
    root = os.path.dirname(os.path.dirname(symbolic.__file__))
    code = f"import sys; sys.path.insert(0, {root!r}); from ekipl_reward import symbolic; print(symbolic.compare('y+x', 'x+y').equal)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_the_helper_gets_no_keys(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "canary-123")
    helper = symbolic._Helper()
    helper.ask(["compare", "1", "1"])
    with open(f"/proc/{helper._process.pid}/environ") as file:
        assert "canary" not in file.read()
    helper.end()


def test_a_hard_question_ends_within_the_limit_and_the_next_is_answered():
    hard = "\\sum_{i=1}^{9999} \\frac{\\sin(i)}{\\sqrt{i} + \\pi^i}"
    assert symbolic.compare(hard, "\\int_0^1 x^{x} \\sin(x^x) dx").gave_up
    assert symbolic.compare("y+x", "x+y").equal


def test_a_helper_that_dies_costs_nothing_but_a_new_start():
    assert symbolic.compare("1+y", "y+1").equal
    os.kill(symbolic._helper._process.pid, signal.SIGKILL)
    assert symbolic.compare("2+y", "y+2").equal


def test_a_helper_that_is_ended_by_its_limit_is_not_asked_again(monkeypatch):
    """Where one long call inside Python lets no exception through, the kernel ends it; once, and not for every answer."""
    started = []
    original = symbolic._start
    monkeypatch.setattr(symbolic, "_start", lambda: started.append(original()) or started[-1])
    helper = symbolic._Helper()
    helper.ask(["compare", "1", "1"])
    monkeypatch.setattr(symbolic, "_write", lambda process, _: os.kill(process.pid, signal.SIGXCPU))
    assert helper.ask(["compare", "1", "1"]) == {"gave_up": True}
    assert len(started) == 1


def test_texts_beyond_the_static_bounds_are_not_asked_about(monkeypatch):
    monkeypatch.setattr(symbolic._Helper, "ask", lambda *_: pytest.fail("the helper was asked"))
    for text in ("9^9^9^9", "9**9**9", "10^{10^{10}}", "2^{100000}", "99999!", "(9!)!", "1" * 300, "1+" * 200):
        assert symbolic.compare(text, "5").gave_up
    assert symbolic.verify("x" * 30_000 + " 3", "3").gave_up
    assert symbolic.verify("no number here", "3") == symbolic.Comparison()
    assert symbolic.verify("The answer is A", "A") == symbolic.Comparison()


@pytest.mark.parametrize(
    "text", ["so it is **3** then", "The total is **12345**", "5 **4** 3", "x^2 y^3", "10^4", "2^3 + 3^2", "3!"]
)
def test_bold_numbers_and_ordinary_powers_are_within_them(text):
    assert symbolic.admissible(text)


def test_whole_numbers_are_decided_without_the_helper_as_with_it(monkeypatch):
    pairs = [("3", "3"), ("3", "4"), ("0", "0"), ("10", "1"), ("123456789012345", "123456789012345")]
    asked = [symbolic._helper.ask(["verify", *pair])["equal"] for pair in pairs]
    monkeypatch.setattr(symbolic._Helper, "ask", lambda *_: pytest.fail("the helper was asked"))
    assert [symbolic.verify(*pair).equal for pair in pairs] == asked


def test_an_installation_without_math_verify_is_an_error_and_no_zero(monkeypatch):
    monkeypatch.setattr(symbolic.sys, "path", ["/nowhere"])
    monkeypatch.setattr(
        symbolic, "_start", lambda: subprocess.Popen([sys.executable, "-c", ""], stdin=-1, stdout=-1, bufsize=0)
    )
    with pytest.raises(HelperError, match="did not start: it ended"):
        symbolic._Helper().ask(["compare", "1", "1"])


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # a zombie waits for init, not for us
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "end", ["pass", "os.kill(os.getpid(), signal.SIGKILL)", "threading.Thread(target=ask).start()"]
)
def test_no_helper_outlives_its_process(end):
    code = f"""
    import os, signal, threading
    from ekipl_reward import symbolic
    def ask():
        for i in range(20):
            symbolic.compare(f"y+{{i}}", f"{{i}}+y")
    ask()
    print(symbolic._helper._process.pid, flush=True)
    {end}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
    assert "Traceback" not in done.stderr
