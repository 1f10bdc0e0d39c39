"""verl imports this module in every worker that has a model (`actor_rollout_ref.model.external_lib`).

Afterwards Megatron-Bridge converts Qwen2-VL and Qwen2.5-VL with our bridges, or SeamError has been raised.
"""

from recipe.ekipl.megatron import seams

seams.require_versions()

from recipe.ekipl.megatron import bridge  # noqa: E402  importing it registers

seams.require_registered(bridge.BRIDGES)
