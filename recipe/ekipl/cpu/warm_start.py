"""Start-up on a small machine: import torch, verl and vLLM once and fork the ten processes of a run from there.

Ray starts an interpreter for each actor and vLLM two more; each spends about 15 s of a core on importing the same
libraries, one after the other. This process imports them once. Ray is given `warm_python.py` as its interpreter
(runtime_env `py_executable`), multiprocessing likewise; it asks here for a fork, hands over arguments, environment,
working directory and open descriptors, and stands in for the fork: signals go down, the exit status comes up. The
forks share the libraries' memory, too.

`EKIPL_WARM_START=0` switches it off. It is used on the CPU platform only: a CUDA context does not survive a fork.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import multiprocessing.spawn
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipe.ekipl.cpu import is_selected

PRELOAD = (
    "verl.trainer.ppo.v1",
    "verl.workers.engine_workers",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.experimental.reward_loop",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "transformers.models.qwen2_vl.modeling_qwen2_vl",
    "ekipl_rollout.on_verl.worker",
    "ekipl_reward",
)
INTERPRETER = "EKIPL_WARM_PYTHON"
FIRST_JOB = "01000000"
"""Ray's C++ reads RAY_JOB_ID and RAY_RAYLET_PID when it is loaded and never again. A fork can therefore serve the first
job of a cluster only (the cluster of a CPU run is new), and ends with the driver, which owns the raylet."""

PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def warm_python(mark: dict[str, str], preload: Sequence[str] = PRELOAD) -> Iterator[str | None]:
    """Path of an executable that behaves like this interpreter, warm; None when switched off.

    `mark` goes into the environment of the process and of all its forks.
    """
    if not is_selected() or os.environ.get("EKIPL_WARM_START") == "0" or not hasattr(os, "pidfd_open"):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ekipl-warm-") as folder:  # 0700; a socket's path must be short
        address, executable = Path(folder, "socket"), Path(folder, "python")
        client = Path(__file__).with_name("warm_python.py")
        words = [sys.executable, "-I", "-S", str(client), sys.executable, str(address)]
        executable.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        executable.chmod(0o700)
        environment = {**os.environ, **mark, INTERPRETER: str(executable)}
        environment |= {"RAY_JOB_ID": FIRST_JOB, "RAY_RAYLET_PID": str(os.getpid())}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(address))
            listener.listen(128)  # before the imports: whoever is early waits in the queue
            command = [sys.executable, "-m", __spec__.name, str(listener.fileno()), *preload]
            server = subprocess.Popen(
                command,
                env=environment,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
        try:
            yield str(executable)
        finally:
            server.terminate()
            server.wait()


class _Fork(Exception):
    """Raised in the fork, to leave the server's loop and everything in it behind."""

    def __init__(self, request: dict[str, Any], descriptors: list[int]):
        self.request, self.descriptors = request, descriptors


class Server:
    """One thread, no library but the preloaded ones; forks on request."""

    def __init__(self, listener: int):
        self._listener = socket.socket(fileno=listener)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._open: set[socket.socket] = set()

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(30)
        request, descriptors = read_request(connection)
        child = os.fork()
        if child == 0:
            self._leave(connection)
            raise _Fork(request, descriptors)
        for number in descriptors:
            os.close(number)
        self._watch(child, connection)

    def _leave(self, connection: socket.socket) -> None:
        self._selector.close()
        for other in (self._listener, connection, *self._open):
            other.close()

    def _watch(self, child: int, connection: socket.socket) -> None:
        ended = os.pidfd_open(child)
        connection.setblocking(False)
        self._open.add(connection)

        def on_end() -> None:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(OSError):
                connection.sendall(status.to_bytes(4, "little", signed=True))
            self._selector.unregister(ended)
            os.close(ended)
            if connection in self._open:
                self._selector.unregister(connection)
                self._open.discard(connection)
            connection.close()

        def on_message() -> None:
            received = b""
            with contextlib.suppress(OSError):
                received = connection.recv(64)
            for number in received or [signal.SIGKILL]:  # nobody stands in for the fork any more
                os.kill(child, number)
            if not received:
                self._selector.unregister(connection)
                self._open.discard(connection)

        self._selector.register(ended, selectors.EVENT_READ, on_end)
        self._selector.register(connection, selectors.EVENT_READ, on_message)


def read_request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 250)
    length, body = int.from_bytes(head, "little"), b""
    while len(body) < length:
        piece = connection.recv(length - len(body))
        if not piece:
            raise ConnectionError("a request ended early")
        body += piece
    return json.loads(body.decode("utf-8", "surrogateescape")), descriptors


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """In the fork: turns into `python <arguments>` as the request describes it."""
    die_with_parent()
    os.setpgid(0, 0)  # Ray kills the process group of a worker that is gone: all forks of the run, were it one
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    take_descriptors(dict(zip(request["numbers"], descriptors, strict=True)))
    interpreter = os.environ[INTERPRETER]
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    if request["environment"].get("RAY_JOB_ID", FIRST_JOB) != FIRST_JOB:
        os.execv(sys.executable, [sys.executable, *request["arguments"]])
    reseed()
    if "ray" in sys.modules:  # it reads the rest of RAY_* once, too, but has a way to look again
        sys.modules["ray"]._raylet.Config.initialize("")
    multiprocessing.spawn.set_executable(interpreter)  # vLLM's engine and its worker
    run(request["arguments"])


def take_descriptors(wanted: dict[int, int]) -> None:
    """`wanted`: number -> descriptor that shall be known by it. First out of the way of all numbers, then into place."""
    above = max([*wanted, *wanted.values(), 2]) + 1
    moved = {}
    for number, descriptor in wanted.items():
        moved[number] = above = above + 1
        os.dup2(descriptor, above)
        os.close(descriptor)
    for number, descriptor in moved.items():
        os.dup2(descriptor, number, inheritable=True)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(write_through=True)


def reseed() -> None:
    """Random states that fresh interpreters would not share (`random` and `uuid` see to themselves)."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def run(arguments: list[str]) -> None:
    """`python [flags] script.py args`, `python [flags] -c code args` or `python [flags] -m module args`."""
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-c", "-m"):
        flag = rest.pop(0)
        if flag in ("-X", "-W") and rest:
            rest.pop(0)
    kind = rest.pop(0) if rest[0] in ("-c", "-m") else "script"
    sys.argv = ["-c" if kind == "-c" else rest[0], *rest[1:]]
    if kind == "-c":
        sys.path[0] = ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)  # noqa: S102  what `python -c` does
    elif kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(rest[0]))
        runpy.run_path(rest[0], run_name="__main__")


def die_with_parent() -> None:
    """Linux: SIGKILL when the process that forked this one ends. Nothing is left behind when it is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def other_threads() -> list[str]:
    """Names of the threads beside this one that are not prepared for a fork. jemalloc (in pyarrow) is."""
    names = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names[1:] if name != "jemalloc_bg_thd"]


def main(listener: str, modules: list[str]) -> None:
    server = Server(int(listener))
    for module in modules:
        importlib.import_module(module)
    if threads := other_threads():
        raise RuntimeError(f"threads {threads} run after the imports: a fork would copy their locks and not them")
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page it touches
    try:
        server.serve()
    except _Fork as fork:
        forked = fork
    become(forked.request, forked.descriptors)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
