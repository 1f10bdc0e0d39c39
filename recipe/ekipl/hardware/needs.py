"""What a run would miss on this machine, each with what to do about it, before anything is loaded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from omegaconf import DictConfig, OmegaConf

from recipe.ekipl.hardware.machine import Machine
from recipe.ekipl.hardware.memory import GIB, Phase, phases
from recipe.ekipl.hardware.model_shape import ModelShape

ASSUMED_GPU_GIB = 80.0
"""Of GPUs that are not here."""

SHARED_MEMORY_PER_GPU = 8 * GIB
"""Assumed: Ray's object store and the buckets in which weights go to vLLM."""

HOST_PER_GPU = 12 * GIB
"""Assumed: the libraries of the processes of one GPU; the models come on top."""

BYTES_OF_A_CHECKPOINT = 14
"""A parameter: float32 weights and both moments, and a bfloat16 copy for evaluation."""

REMEDIES: tuple[Mapping[str, object], ...] = (
    {"actor_rollout_ref.rollout.gpu_memory_utilization": 0.4},
    {"actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 8192, "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 8192},
    {
        "actor_rollout_ref.actor.fsdp_config.param_offload": True,
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload": True,
    },
    {"actor_rollout_ref.ref.megatron.param_offload": True},
    {
        "actor_rollout_ref.actor.megatron.param_offload": True,
        "actor_rollout_ref.actor.megatron.optimizer_offload": True,
    },
)  # fmt: skip
"""The one that costs least speed first."""


@dataclass(frozen=True)
class Wanted:
    gpus: int
    """In all nodes."""

    nodes: int
    gpu_bytes: float
    """Memory of one GPU."""


def wanted_by(config: DictConfig, machine: Machine, assumed_gib: float = ASSUMED_GPU_GIB) -> Wanted:
    """assumed_gib: of a GPU, where this machine has none."""
    trainer = config.trainer
    gpu_bytes = min((gpu.total for gpu in machine.gpus), default=assumed_gib * GIB)
    return Wanted(trainer.n_gpus_per_node * trainer.nnodes, trainer.nnodes, gpu_bytes)


def missing(config: DictConfig, shape: ModelShape, wanted: Wanted, machine: Machine) -> list[str]:
    found = [*few_gpus(wanted, machine), *_gpu_memory(config, shape, wanted, machine)]
    if machine.gpus:  # the needs of a host that has none of the GPUs are of no interest
        found += [*_host(shape, wanted, machine), *_disk(config, shape, machine)]
    return found


def few_gpus(wanted: Wanted, machine: Machine) -> Iterator[str]:
    """At most one problem: fewer GPUs here, or in the cluster, than are asked for."""
    have = len(machine.gpus) if machine.cluster_gpus is None else machine.cluster_gpus
    if have >= wanted.gpus:
        return
    if wanted.nodes > 1 and machine.cluster_gpus is None:
        yield (
            f"{wanted.nodes} nodes need a Ray cluster, and none answers at RAY_ADDRESS. Start one with scripts/cluster/ray_node.sh, "
            "scripts/cluster/slurm.sh or scripts/cluster/rayjob.yaml, and set RAY_ADDRESS=auto."
        )
        return
    instead = (
        f"NNODES=1 NGPUS={have // (wanted.nodes if machine.cluster_gpus else 1)} runs it on those of one node, if their memory suffices."
        if have
        else "bash scripts/run_ekipl_tiny.sh trains a tiny model on a CPU; DRY_RUN=1 plans this run without a GPU."
    )
    hidden = machine.hidden_gpus and machine.cluster_gpus is None
    seen = f" ({machine.seen}; unset it for all)" if hidden else ""
    yield f"{wanted.gpus} GPUs are asked for and {have} found{seen}. {instead}"


def _gpu_memory(config: DictConfig, shape: ModelShape, wanted: Wanted, machine: Machine) -> Iterator[str]:
    largest = _largest(config, shape, wanted)
    if largest.total <= wanted.gpu_bytes:
        gpu = machine.fullest
        if gpu and gpu.free < largest.total:
            yield (
                f"{largest.name} needs about {largest.total / GIB:.0f} GiB on each GPU, and others hold memory here: "
                f"{machine.seen}, GPU {gpu.index}. End what holds it (nvidia-smi), or choose others with CUDA_VISIBLE_DEVICES."
            )
        return
    yield (
        f"{largest.name} needs about {largest.total / GIB:.0f} GiB on each GPU, which has {wanted.gpu_bytes / GIB:.0f} GiB. "
        + _remedy(config, shape, wanted)
    )


def _largest(config: DictConfig, shape: ModelShape, wanted: Wanted) -> Phase:
    return max(phases(config, shape, wanted.gpus, wanted.gpu_bytes), key=lambda phase: phase.total)


def _remedy(config: DictConfig, shape: ModelShape, wanted: Wanted) -> str:
    """The fewest settings that make it fit."""
    usable = [
        kept
        for each in REMEDIES
        if (kept := {k: v for k, v in each.items() if OmegaConf.select(config, k) is not None})
    ]
    for count in range(1, len(usable) + 1):
        for chosen in combinations(usable, count):
            changed = config.copy()
            settings = {key: value for each in chosen for key, value in each.items()}
            for key, value in settings.items():
                OmegaConf.update(changed, key, value)
            if _largest(changed, shape, wanted).total <= wanted.gpu_bytes:
                return f"Add {' '.join(f'{key}={value}' for key, value in settings.items())}."
    return "Take more GPUs (NNODES=2), or a smaller model (scripts/run_ekipl_2b.sh)."


def _host(shape: ModelShape, wanted: Wanted, machine: Machine) -> Iterator[str]:
    here = wanted.gpus / wanted.nodes
    shared = here * SHARED_MEMORY_PER_GPU
    if machine.shared_memory < shared:
        yield (
            f"/dev/shm has {machine.shared_memory / GIB:.0f} GiB free, about {shared / GIB:.0f} GiB are needed. In a container: "
            f"docker run --shm-size={shared / GIB:.0f}g (or --ipc=host)."
        )
    memory = (
        here * HOST_PER_GPU + 8 * shape.parameters
    )  # verl keeps the reference there, and loads the policy through it
    if machine.memory < memory:
        yield (
            f"the host has {machine.memory / GIB:.0f} GiB of memory free, about {memory / GIB:.0f} GiB are needed. Free some, use "
            "more nodes (NNODES=2), or take scripts/run_ekipl_2b.sh."
        )


def _disk(config: DictConfig, shape: ModelShape, machine: Machine) -> Iterator[str]:
    kept = config.trainer.get("max_actor_ckpt_to_keep") or 1
    needed = (kept + 1) * BYTES_OF_A_CHECKPOINT * shape.parameters  # a new one is written before an old one goes
    if config.trainer.save_freq > 0 and machine.disk < needed:
        yield (
            f"the disk of {config.ekipl.run_dir} has {machine.disk / GIB:.0f} GiB free, {kept} checkpoints need {needed / GIB:.0f} GiB. "
            "Choose another RUN_DIR, or a smaller trainer.max_actor_ckpt_to_keep."
        )
