"""Several tasks at a time, each once those that it needs are done; what they call is ended when the program is stopped.

A Ctrl-C, SIGTERM or SIGHUP reaches every command once, from here, and it has ENDING_S to end by itself: a training closes
what it has asked for, Ray and vLLM. (subprocess.run kills its command a quarter of a second after Ctrl-C.) A second one
kills. After a SIGKILL of the program its commands go on.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Protocol, TypeVar

from ekipl_rollout.errors import EkiplError, SettingsError

ENDING_S = 150.0


class Task(Protocol):
    """Something that is done as a whole."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of tasks that must be done before; one that is not there is done."""


T = TypeVar("T", bound=Task)


class Stopped(EkiplError):
    """The program was told to stop, and a task with it."""


class Lanes:
    """`jobs` tasks at a time, each with its share of the cores. Raises SettingsError for fewer than one."""

    def __init__(self, jobs: int):
        if jobs < 1:
            raise SettingsError(f"--jobs {jobs} must be 1 or more: it is how many run at the same time.")
        self._jobs = jobs
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._ending = False

    def call(
        self, command: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> int:
        """Exit status of `command`, for tasks of `run_all`. It writes to the end of `log` (None: where this program does);
        `environment` on top of ours. Raises Stopped."""
        share = {"OMP_NUM_THREADS": str(self._threads())} if self._jobs > 1 else {}
        variables = {**share, **os.environ, **(environment or {})}
        with _appended(log) as file, self._lock:
            self.check()
            if file:
                file.write(f"$ {' '.join(command[1:])}\n".encode())
            # a session of its own: a Ctrl-C in the terminal comes to it from end(), and once
            process = subprocess.Popen(command, env=variables, stdout=file, stderr=file, start_new_session=True)
            self._running.add(process)
        try:
            status = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
        self.check()
        return status

    def check(self) -> None:
        """For tasks that wait for something else. Raises Stopped."""
        if self._ending:
            raise Stopped("the program was told to stop")

    def run_all(self, tasks: Sequence[T], work: Callable[[T], object]) -> None:
        """`work` for each of `tasks`, in their order as far as needs allow.

        When one raises, nothing more is begun, those that are under way come to their end, and it is raised again. When
        this program is told to stop, they are told to end.
        """
        left, running = list(tasks), dict[Future, T]()
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                while left or running:
                    for task in _ready(left, running.values())[: self._jobs - len(running)]:
                        left.remove(task)
                        running[pool.submit(work, task)] = task
                    for ended in wait(running, return_when=FIRST_COMPLETED).done:
                        try:
                            ended.result()
                        except Exception:
                            wait(running)
                            raise
                        running.pop(ended)
            except KeyboardInterrupt:
                self.end()
                raise

    def end(self) -> None:
        """Ctrl-C to each command and to its process group, patience, and SIGKILL. Nothing can be called afterwards."""
        self._ending = True
        with self._lock:
            processes = list(self._running)
        _signal(processes, signal.SIGINT)
        deadline = time.monotonic() + ENDING_S
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in processes:
                process.wait(max(deadline - time.monotonic(), 0.1))
        _signal(processes, signal.SIGKILL)

    def _threads(self) -> int:
        return max(1, len(os.sched_getaffinity(0)) // self._jobs)


def makespan(tasks: Sequence[Task], lasts: Mapping[str, float], jobs: int) -> float:
    """What `run_all` would take, by how long each task lasts."""
    left: list[Task] = list(tasks)
    running: dict[str, tuple[float, Task]] = {}
    now = 0.0
    while left or running:
        for task in _ready(left, [task for _, task in running.values()])[: jobs - len(running)]:
            left.remove(task)
            running[task.name] = (now + lasts[task.name], task)
        now, ended = min(running.values(), key=lambda entry: entry[0])
        del running[ended.name]
    return now


def stop_like_ctrl_c() -> None:
    """SIGTERM, and the end of the terminal, end this program as Ctrl-C does, also where a shell's `&` had that ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)


@contextlib.contextmanager
def _appended(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as file:
        yield file


def _signal(processes: Iterable[subprocess.Popen], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def _ready(left: Sequence[T], running: Iterable[Task]) -> list[T]:
    """Those whose needs neither wait nor run."""
    unfinished = {task.name for task in left} | {task.name for task in running}
    return [task for task in left if not unfinished.intersection(task.needs)]
