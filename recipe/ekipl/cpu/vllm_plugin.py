"""vLLM calls `register` in each of its processes (entry point group vllm.general_plugins)."""

import os


def register() -> None:
    """Does nothing unless this process runs under verl on a CPU."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    from recipe.ekipl.cpu import shims

    shims.keep_vllm_weights()
    shims.nap_between_looks()
