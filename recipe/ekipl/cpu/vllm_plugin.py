"""vLLM calls `register` in each of its processes (entry point group vllm.general_plugins)."""

import os


def register() -> None:
    """Does nothing unless this process runs under verl on a CPU."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    from recipe.ekipl.cpu import shims

    shims.keep_vllm_weights()
    shims.nap_between_looks()


def is_active() -> bool:
    """Whether this process, which has called vLLM's `load_general_plugins`, runs with the shims."""
    import vllm._custom_ops as ops
    from vllm.distributed.device_communicators import shm_broadcast

    return not ops._supports_onednn and hasattr(shm_broadcast.sched_yield, "_ekipl_shim")
