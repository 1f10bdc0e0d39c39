"""Qwen2-VL and Qwen2.5-VL on veRL's Megatron engine: what no released bridge brings (docs/megatron.md).

model.py     the vision tower of transformers in front of Megatron-Core's decoder; padded and packed rows
bridge.py    Hugging Face checkpoint <-> Megatron-Core, for Megatron-Bridge
register.py  what verl imports in every worker; registers the bridges or raises
seams.py     what of Megatron-Bridge, Megatron-Core and transformers this hangs on
"""

EXTERNAL_LIB = "recipe.ekipl.megatron.register"
"""Value for `actor_rollout_ref.model.external_lib`."""
