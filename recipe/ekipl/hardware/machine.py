"""What this machine, or the Ray cluster it belongs to, has."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB, GIB = 1024**2, 1024**3


@dataclass(frozen=True)
class Gpu:
    name: str
    total: int
    """Bytes."""

    used: int = 0
    """Bytes of it that somebody holds now."""

    index: int = 0
    uuid: str = ""

    @property
    def free(self) -> int:
        return self.total - self.used


@dataclass(frozen=True)
class Machine:
    """Bytes throughout; of this node, except for `cluster_gpus`."""

    gpus: tuple[Gpu, ...]
    memory: int
    """Free, of the host."""

    shared_memory: int
    """Free below /dev/shm, where Ray keeps objects and weights go to vLLM."""

    disk: int
    """Free where the run folder will be."""

    hidden_gpus: int = 0
    """More that are here, and not among those of CUDA_VISIBLE_DEVICES."""

    cluster_gpus: int | None = None
    """Of the Ray cluster at RAY_ADDRESS; None without one, or when it does not answer."""

    @property
    def fullest(self) -> Gpu | None:
        """The GPU with the least free memory."""
        return min(self.gpus, key=lambda gpu: gpu.free, default=None)

    @property
    def seen(self) -> str:
        """Its GPUs in words: "8 GPUs, 4 visible by CUDA_VISIBLE_DEVICES, 71 of 80 GiB free on the fullest"."""
        words = [f"{len(self.gpus) + self.hidden_gpus} GPUs"]
        if self.hidden_gpus:
            words.append(f"{len(self.gpus)} visible by CUDA_VISIBLE_DEVICES")
        if gpu := self.fullest:
            words.append(f"{gpu.free / GIB:.0f} of {gpu.total / GIB:.0f} GiB free on the fullest")
        return ", ".join(words)


def look(run_dir: Path, ask_cluster: bool) -> Machine:
    """`ask_cluster`: also ask the Ray cluster at RAY_ADDRESS, which takes a few seconds."""
    gpus = local_gpus()
    seen = visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(
        gpus=seen,
        hidden_gpus=len(gpus) - len(seen),
        memory=os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached(),
        shared_memory=_free(Path("/dev/shm")),
        disk=_free(run_dir),
        cluster_gpus=_cluster_gpus() if ask_cluster and os.environ.get("RAY_ADDRESS") else None,
    )


def local_gpus() -> tuple[Gpu, ...]:
    """By nvidia-smi, which answers without a CUDA context; none where there is no driver."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.used,name", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(read_gpus(answer))


def read_gpus(answer: str) -> list[Gpu]:
    """From lines such as "0, GPU-5f3a, 81920, 4, NVIDIA A100-SXM4-80GB"; lines of other shapes are passed over."""
    found = []
    for line in answer.splitlines():
        index, uuid, total, used, name = ([word.strip() for word in line.split(",", 4)] + [""] * 5)[:5]
        if index.isdigit() and total.isdigit():
            taken = int(used) * MIB if used.isdigit() else 0  # "[N/A]" where the driver does not tell
            found.append(Gpu(name, int(total) * MIB, taken, int(index), uuid))
    return found


def visible(gpus: Sequence[Gpu], devices: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA would show: numbers or beginnings of UUIDs, up to the first that is none of them; None: all."""
    if devices is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for word in map(str.strip, devices.split(",")):
        named = [gpu for gpu in gpus if word and (str(gpu.index) == word or gpu.uuid.startswith(word))]
        if len(named) != 1:
            break
        found += named
    return tuple(found)


def _free(path: Path) -> int:
    """Where `path` is or will be; 0 where it cannot be."""
    for folder in (path, *path.absolute().parents):
        if folder.exists():
            return shutil.disk_usage(folder).free
    return 0


def _cached() -> int:
    """Page cache that the kernel gives back: MemAvailable less MemFree."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    sizes = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
    return max(0, sizes.get("MemAvailable", 0) - sizes.get("MemFree", 0))


def _cluster_gpus() -> int | None:
    import ray

    try:
        ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError, TimeoutError):
        return None
    try:
        return int(ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()
