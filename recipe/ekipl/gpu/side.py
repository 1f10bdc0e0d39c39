"""One side of a comparison, in a process of its own.

verl replaces methods of transformers' classes when it builds an engine, so the plain model must live elsewhere; and each
process then has an allocator of its own, whose peak is that side's alone. The two take turns on the device.
"""

import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

SAMPLE = 1000  # leading elements of each parameter that are compared after an update
GIB = 1024**3


class Side:
    """What both sides have in common. A subclass adds log_probs, update, checkpointing and parameters."""

    def __init__(self, device: str):
        self.on_gpu = device != "cpu"
        if not self.on_gpu:
            torch.set_num_threads(1)  # both sides alike; threads that wait for each other spin on a busy machine

    def parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names as transformers has them; whole tensors, whatever they are stored as."""
        raise NotImplementedError

    def sample(self) -> dict[str, np.ndarray]:
        """The first elements of each parameter, float32."""
        with torch.no_grad():
            return {name: p.flatten()[:SAMPLE].float().cpu().numpy() for name, p in self.parameters()}

    def timed(self, method: str, *arguments: Any) -> tuple[float, float, Any]:
        """Seconds, peak memory in GiB (the allocator's; on a CPU the process's, which never falls) and the result."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter()
        result = getattr(self, method)(*arguments)
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated() if self.on_gpu else _resident_peak()
        return seconds, peak / GIB, result


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class SideFailed(RuntimeError):
    """A side raised; carries its traceback."""


class Remote:
    """`Remote(make, ...)` calls `make(...)` in a new process; `remote.method(...)` calls the method there."""

    def __init__(self, make: Callable[..., Side], *arguments: Any):
        context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._connection.send((method, arguments))
            return self._receive()

        return call

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: Any) -> None:
        self._connection.close()  # the other end reads EOF and returns
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> Any:
        try:
            failed, value = self._connection.recv()
        except EOFError:
            self._process.join(timeout=10)
            raise SideFailed(
                f"the process ended by itself with {self._process.exitcode} (-9: out of memory?)"
            ) from None
        if failed:
            raise SideFailed(value)
        return value


def _serve(connection: Any, make: Callable[..., Side], arguments: tuple) -> None:
    os.dup2(2, 1)  # libraries print; stdout is for results
    try:
        side = make(*arguments)
    except Exception:
        connection.send((True, traceback.format_exc()))
        return
    connection.send((False, None))
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        try:
            answer = (False, getattr(side, method)(*given))
        except Exception:
            answer = (True, traceback.format_exc())
        connection.send(answer)
