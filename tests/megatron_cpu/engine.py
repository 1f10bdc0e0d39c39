"""verl's Megatron engine for device "cpu". verl imports this module through `model.external_lib`."""

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.megatron import MegatronEngineWithLMHead

import recipe.ekipl.megatron.register  # noqa: F401  the product: it is what is tested
from tests.megatron_cpu import cuda


class MegatronEngineOnCPU(MegatronEngineWithLMHead):
    """verl's own engine, in a process where "cuda" means the CPU."""

    def __init__(self, *args, **kwargs):
        cuda.install()
        super().__init__(*args, **kwargs)


if "cpu" not in EngineRegistry._engines["language_model"].get("megatron", {}):
    EngineRegistry.register(model_type="language_model", backend="megatron", device="cpu")(MegatronEngineOnCPU)
