"""A CPU platform for verl 0.9.1 (verl/plugin/platform/platform_base.py)."""

import contextlib
import os
import resource
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _peak_bytes(*_: Any) -> int:
    """Peak resident memory of this process; stands where a GPU reports its allocator."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _free_and_total_bytes(*_: Any) -> tuple[int, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page


def _device_module() -> ModuleType:
    """What `torch.cuda` is to the CUDA platform. `torch.cpu` lacks most of these names."""
    module: Any = ModuleType("ekipl_torch_cpu_device")
    nothing = ("empty_cache", "synchronize", "ipc_collect", "reset_peak_memory_stats", "set_device", "current_stream")
    for name in nothing:
        setattr(module, name, lambda *_, **__: None)
    module.manual_seed = module.manual_seed_all = torch.manual_seed
    module.is_available = lambda: True
    module.current_device = lambda: "cpu"
    module.device_count = lambda: 1
    module.get_device_name = lambda *_: "cpu"
    module.get_rng_state = lambda *_: torch.get_rng_state()
    module.set_rng_state = lambda state, *_: torch.set_rng_state(state)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, _peak_bytes)
    module.mem_get_info = _free_and_total_bytes
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One logical device called "cpu"; gloo between processes, shared memory for weight transfer."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never detected by itself: only VERL_PLATFORM=cpu selects it

    def current_device(self) -> str:
        return "cpu"  # callers pass it to tensor.to(), which takes no index on a CPU

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "EKIPL_CPU_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str):
        return contextlib.nullcontext()

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        # verl's resource pools count only "GPU" and "NPU". Ray is started with logical GPUs (ray_init.num_gpus).
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights then go to vLLM through shared memory instead of CUDA IPC handles

    def cudart(self) -> Any:
        return None
