"""veRL 0.9.1 and vLLM 0.24.0 on a machine without a GPU.

verl has a platform interface (cuda, npu, rocm) and no CPU platform; this package adds one, and seven shims for what the
interface cannot reach. Nothing here is loaded on a machine with a GPU.

    plugin.py       what verl imports in every process (VERL_USE_EXTERNAL_MODULES); raises when something no longer fits
    platform.py     the platform, as verl's own plugin interface wants it; could be proposed upstream as it is
    shims.py        what the interface cannot reach, each with the version it is for and a check that it applied
    engine.py       the FSDP engine registered for device "cpu" (verl imports it through model.external_lib)
    vllm_plugin.py  vLLM's plugin hook, run in each vLLM process

`environment()` names what has to be set before verl is imported anywhere; every Ray worker inherits it.
"""

import os

PLUGIN_MODULE = "recipe.ekipl.cpu.plugin"


def is_selected() -> bool:
    """True in processes that were told to run on the CPU."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def wanted() -> bool:
    """True when this machine has no usable NVIDIA, AMD or Ascend device, or when VERL_PLATFORM=cpu asks for it."""
    if os.environ.get("VERL_PLATFORM"):
        return is_selected()
    return not any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/davinci_manager"))


def environment() -> dict[str, str]:
    """Environment of a CPU run. Values that the user has set win, except for the platform itself."""
    defaults = {
        # GiB of memory for vLLM's KV cache; a tiny model needs a few MiB
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # torch and vLLM both start one thread per core in each of about ten processes without this
        "OMP_NUM_THREADS": "1",
        # TransferQueue would start eight for every row it packs, and warn each time that there are fewer cores
        "TQ_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        # verl calls processors in a way that transformers 5.9 complains about once a row
        "TRANSFORMERS_VERBOSITY": "error",
        # torch would start ten interpreters to find out what code its compiler may emit; nothing is compiled here
        "TORCHINDUCTOR_VEC_ISA_OK": "0",
        # Ray runs its workers at niceness 15: vLLM's, which are not Ray's, would take the core from the one that feeds them
        "RAY_worker_niceness": "0",
        # Ray hides accelerators from workers by variables of its own; there is nothing to hide
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    modules = [name for name in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if name]
    if PLUGIN_MODULE not in modules:
        modules.append(PLUGIN_MODULE)
    forced = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": ",".join(modules)}
    return {**{name: os.environ.get(name, value) for name, value in defaults.items()}, **forced}
