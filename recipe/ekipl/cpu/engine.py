"""verl's FSDP engine for device "cpu". verl imports this module through `model.external_lib`.

It is registered here and not with the platform because the engine cannot be imported while `import verl` is running.
"""

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from recipe.ekipl.cpu import shims


class FSDPEngineOnCPU(FSDPEngineWithLMHead):
    """verl's own engine; only the offload policy of the frozen reference differs."""

    def _build_fsdp_module(self, module):
        with shims.no_pinned_memory():
            return super()._build_fsdp_module(module)


shims.all_tokens_at_once()
if "cpu" not in EngineRegistry._engines.get("language_model", {}).get("fsdp2", {}):
    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineOnCPU)
