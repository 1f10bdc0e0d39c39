"""verl's FSDP engine for device "cpu". verl imports this module through `model.external_lib`.

It is registered here and not with the platform because the engine cannot be imported while `import verl` is running.
"""

import os
from typing import Any

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from recipe.ekipl.cpu import shims


class FSDPEngineOnCPU(FSDPEngineWithLMHead):
    """verl's own engine; the offload policy of the frozen reference and the number of threads differ."""

    def __init__(self, *args: Any, **kwargs: Any):
        # OMP_NUM_THREADS=1 keeps ten processes from fighting; while the actor computes, the others wait for it
        torch.set_num_threads(os.cpu_count() or 1)
        super().__init__(*args, **kwargs)

    def _build_fsdp_module(self, module):
        with shims.no_pinned_memory():
            return super()._build_fsdp_module(module)


if "cpu" not in EngineRegistry._engines.get("language_model", {}).get("fsdp2", {}):
    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineOnCPU)
