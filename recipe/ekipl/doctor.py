"""Will a run work on this machine, and on every node of its Ray cluster? Green, or what to do.

    python -m recipe.ekipl.doctor [--run-dir runs] [--without-ray]

    versions    the packages that this recipe was written for
    platform    a GPU with flash-attn, or verl's CPU platform of ours
    seams       the names of verl that our worker, sampler and estimator hang on
    processes   this process and a Ray worker on every node load the same versions, our worker and the platform
                (RAY_ADDRESS, or a cluster of its own)
    engines     without a GPU: a process as vLLM starts it on every node loads our plugin
    memory      /dev/shm, where Ray keeps objects
    ports       loopback, and no proxy in its way
    disk        room for checkpoints, and a file system that a record may lie on

The experts have a doctor of their own: python -m ekipl_rollout.experts doctor. Ends with status 1 when something must be mended.
"""

import argparse
import contextlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekipl_rollout.record.filesystem import network_problem
from recipe.ekipl import cpu
from recipe.ekipl.checks import VERL
from recipe.ekipl.hardware.machine import Machine, look
from recipe.ekipl.hardware.memory import GIB
from recipe.ekipl.hardware.needs import SHARED_MEMORY_PER_GPU
from recipe.ekipl.hardware.nodes import PLUGIN, installed, load_vllm_plugins, look_around, on_every_node

WANTED = {"verl": (VERL,), "TransferQueue": ("0.1.11",), "vllm": ("0.24.0",), "transformers": ("5.9.0",)}
"""What the tests ran with."""

SHARED_MEMORY_CPU = GIB  # of a run without GPUs
DISK = 20 * GIB  # of the run folder
PORTS = 40
"""Sockets that a small run holds on one node: Ray, TransferQueue, vLLM, the checkpoint engine."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it; an empty `remedy` is green."""

    what: str
    found: str
    remedy: str = ""

    def line(self) -> str:
        return f"  {'MEND' if self.remedy else 'ok':<5} {self.what:<10} {self.found}" + (
            f"\n{'':<18}{self.remedy}" if self.remedy else ""
        )


def versions() -> Iterator[Finding]:
    found, wrong = [f"python {sys.version.split()[0]}"], []
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        wrong.append("Python 3.10, 3.11 or 3.12")
    for name, wanted in WANTED.items():
        have = installed(name)
        found.append(f"{name} {have or 'is not installed'}")
        if have is None or have.split("+")[0] not in wanted:
            wrong.append(f"{name}=={wanted[0]}")
    remedy = (
        f"Install {', '.join(wrong)}: bash scripts/setup.sh, or pip install '.[train]' in the clone." if wrong else ""
    )
    yield Finding("versions", ", ".join(found), remedy)


def platform(machine: Machine) -> Iterator[Finding]:
    gpus = machine.gpus
    if cpu.is_selected():
        yield Finding("platform", "CPU (VERL_PLATFORM=cpu)")
    elif gpus:
        attention = installed("flash-attn")
        yield Finding(
            "platform",
            f"{machine.seen} ({gpus[0].name}), flash-attn {attention or 'is not installed'}",
            "" if attention else "pip install flash-attn --no-build-isolation, or do without on FSDP (docs/gpu.md).",
        )
    elif machine.hidden_gpus:
        yield Finding(
            "platform",
            f"{machine.hidden_gpus} GPUs, all hidden by CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}",
            "unset CUDA_VISIBLE_DEVICES, or train on the CPU: export VERL_PLATFORM=cpu.",
        )
    else:
        yield Finding(
            "platform",
            "a device file of an accelerator, but nvidia-smi lists no GPU",
            "Mend the driver (nvidia-smi must answer), or train on the CPU: export VERL_PLATFORM=cpu.",
        )


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """verl warns of every engine that is not installed; which one is needed is the config's business."""
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def seams() -> Iterator[Finding]:
    try:
        with without_chatter():
            import ekipl_rollout.on_verl.sampler
            import ekipl_rollout.on_verl.worker  # noqa: F401
    except Exception as error:  # whatever verl raises when a name is gone: the user should read it
        yield Finding(
            "seams", f"{type(error).__name__}: {error}", f"Install verl {VERL} unchanged, with its extra verl-core."
        )
    else:
        yield Finding("seams", f"our worker, sampler and estimator fit verl {installed('verl')}")


def processes() -> Iterator[Finding]:
    try:
        with without_chatter():
            driver = look_around()
    except Exception as error:  # verl does not load here, whatever the reason
        yield Finding("processes", f"the driver: {_said(error)}", "Mend what `seams` says first.")
        return
    with contextlib.ExitStack() as stack:
        try:
            run = stack.enter_context(on_every_node())
        except Exception as error:  # a start that takes too long is a plain Exception of Ray
            yield Finding(
                "processes",
                f"Ray does not start: {error}",
                "See the end of /tmp/ray/session_latest/logs, unset RAY_ADDRESS, or wait until the machine is less busy; --without-ray looks at the rest.",
            )
            return
        yield from compare(driver, run(look_around))
        if cpu.is_selected():
            yield from engines(run(load_vllm_plugins))


def compare(driver: dict[str, Any], seen: dict[str, Any]) -> Iterator[Finding]:
    """Nodes whose worker fails, and nodes that differ from the driver."""
    wrong = False
    for host, found in seen.items():
        if isinstance(found, Exception):
            wrong = True
            yield Finding(
                "processes",
                f"{host}: {_said(found)}",
                "Install the same environment there, at the same path; PYTHONPATH too.",
            )
        elif found != driver:
            wrong = True
            differs = ", ".join(
                f"{name} {found.get(name)} (the driver {driver.get(name)})"
                for name in {**driver, **found}
                if found.get(name) != driver.get(name)
            )
            yield Finding("processes", f"{host}: {differs}", "Install the same versions on every node.")
    if not wrong:
        what = ", ".join(f"{name} {value}" for name, value in driver.items())
        yield Finding("processes", f"the driver and a Ray worker on each of {len(seen)} nodes: {what}")


def engines(seen: dict[str, Exception | None]) -> Iterator[Finding]:
    """Nodes on which vLLM's processes would run without the shims of a CPU run."""
    failed = {host: error for host, error in seen.items() if error}
    for host, error in failed.items():
        remedy = (
            "pip install --no-deps -e . in the clone, with the Python of the run; VLLM_PLUGINS unset, or with " + PLUGIN
        )
        yield Finding("engines", f"{host}: {_said(error)}", remedy)
    if not failed:
        yield Finding("engines", f"a vLLM process on each of {len(seen)} nodes loaded {PLUGIN}")


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def memory(machine: Machine) -> Iterator[Finding]:
    needed = len(machine.gpus) * SHARED_MEMORY_PER_GPU or SHARED_MEMORY_CPU
    found = (
        f"{machine.shared_memory / GIB:.1f} GiB free in /dev/shm, {machine.memory / GIB:.0f} GiB of the host's memory"
    )
    short = machine.shared_memory < needed
    remedy = (
        f"{needed / GIB:.0f} GiB of shared memory are needed: docker run --shm-size={needed / GIB:.0f}g, or --ipc=host."
    )
    yield Finding("memory", found, remedy if short else "")


def ports() -> Iterator[Finding]:
    held = []
    try:
        for _ in range(PORTS):
            held.append(socket.create_server(("127.0.0.1", 0)))
    except OSError as error:
        yield Finding(
            "ports", f"loopback has no free port: {error}", "Allow sockets on 127.0.0.1 (sandbox, ulimit -n)."
        )
    else:
        yield Finding("ports", f"{PORTS} free on 127.0.0.1")
    finally:
        for server in held:
            server.close()
    proxy = next((name for name in ("http_proxy", "HTTP_PROXY") if os.environ.get(name)), None)
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if proxy and not any(name in spared for name in ("127.0.0.1", "localhost", "*")):
        yield Finding(
            "ports",
            f"{proxy} is set, and requests to this machine itself would take it",
            "export no_proxy=127.0.0.1,localhost",
        )


def disk(machine: Machine, run_dir: Path) -> Iterator[Finding]:
    few = f"A run writes checkpoints; {DISK / GIB:.0f} GiB are the least. Free some, or choose another ekipl.run_dir."
    yield Finding("disk", f"{machine.disk / GIB:.0f} GiB free at {run_dir}", few if machine.disk < DISK else "")
    if problem := network_problem(run_dir / "records.sqlite"):
        yield Finding("disk", f"{run_dir} is no place for a record", problem)


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m recipe.ekipl.doctor", description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--run-dir", type=Path, default=Path("runs"), help="where runs are written (default: %(default)s)"
    )
    parser.add_argument("--without-ray", action="store_true", help="start no Ray; leaves out what takes longest")
    args = parser.parse_args(argv)
    if cpu.wanted():
        os.environ.update(cpu.environment())
    machine = look(args.run_dir, ask_cluster=False)
    looks: list[Callable[[], Iterator[Finding]]] = [
        versions,
        lambda: platform(machine),
        seams,
        *([] if args.without_ray else [processes]),
        lambda: memory(machine),
        ports,
        lambda: disk(machine, args.run_dir),
    ]
    mend = 0
    for each in looks:
        for finding in each():
            print(finding.line(), flush=True)
            mend += bool(finding.remedy)
    print("all green" if not mend else f"{mend} to mend")
    return 1 if mend else 0


if __name__ == "__main__":
    sys.exit(main())
