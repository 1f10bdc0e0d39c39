"""Hugging Face checkpoint <-> Megatron-Core for Qwen2-VL and Qwen2.5-VL, registered with Megatron-Bridge.

The parameter names follow Megatron-Bridge's own Qwen2.5-VL bridge (megatron/bridge/models/qwen_vl/qwen25_vl_bridge.py,
Apache-2.0, NVIDIA). That one knows no Qwen2-VL, reads the text settings from the top of the configuration, where
transformers 5 no longer keeps them, and its model cannot be packed; so ours replaces it, too.
"""

from dataclasses import dataclass, field
from typing import Any

from megatron.bridge.models.conversion.mapping_registry import MegatronMappingRegistry
from megatron.bridge.models.conversion.model_bridge import MegatronModelBridge
from megatron.bridge.models.conversion.param_mapping import (
    AutoMapping,
    GatedMLPMapping,
    QKVMapping,
    ReplicatedMapping,
)
from megatron.bridge.models.gpt_provider import GPTModelProvider
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration

from recipe.ekipl.megatron import seams
from recipe.ekipl.megatron.model import Qwen2VLMegatronModel, Qwen25VLMegatronModel

HERE, THERE = "language_model.decoder.layers.*.", "model.layers.*."
SAME_SHAPE = {
    "language_model.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "language_model.output_layer.weight": "lm_head.weight",
    "language_model.decoder.final_layernorm.weight": "model.norm.weight",
    HERE + "self_attention.linear_qkv.layer_norm_weight": THERE + "input_layernorm.weight",
    HERE + "mlp.linear_fc1.layer_norm_weight": THERE + "post_attention_layernorm.weight",
    HERE + "self_attention.linear_proj.weight": THERE + "self_attn.o_proj.weight",
    HERE + "mlp.linear_fc2.weight": THERE + "mlp.down_proj.weight",
}

seams.require_parameters(MegatronModelBridge.register_bridge, "source", "target")
seams.require_parameters(GPTModelProvider.provide, "pre_process", "post_process", "vp_stage")
seams.require_parameters(QKVMapping, "megatron_param", "q", "k", "v")


@dataclass
class Qwen2VLProvider(GPTModelProvider):
    """Megatron-Core's configuration of one model; verl sets parallel sizes and precision on it."""

    MODEL = Qwen2VLMegatronModel

    position_embedding_type: str = "mrope"
    mrope_section: list[int] = field(default_factory=list)
    # pictures are put among the embeddings before these are scattered
    scatter_embedding_sequence_parallel: bool = False
    vision_config: Any = None
    image_token_id: int | None = None
    video_token_id: int | None = None

    def provide(self, pre_process=None, post_process=None, vp_stage=None) -> Qwen2VLMegatronModel:
        return self.MODEL(self, pre_process, post_process, vp_stage)

    def provide_language_model(self, pre_process=None, post_process=None, vp_stage=None):
        return super().provide(pre_process, post_process, vp_stage)


class Qwen25VLProvider(Qwen2VLProvider):
    MODEL = Qwen25VLMegatronModel


@MegatronModelBridge.register_bridge(source=Qwen2VLForConditionalGeneration, target=Qwen2VLMegatronModel)
class Qwen2VLBridge(MegatronModelBridge):
    PROVIDER = Qwen2VLProvider

    def provider_bridge(self, hf_pretrained) -> Qwen2VLProvider:
        """`hf_pretrained.config` -> provider. Every size and token id is the checkpoint's own."""
        config = hf_pretrained.config
        text = config.text_config
        provider = self.PROVIDER(**self.hf_config_to_provider_kwargs(text))
        provider.normalization, provider.gated_linear_unit = "RMSNorm", True
        provider.add_qkv_bias, provider.add_bias_linear = True, False
        provider.hidden_dropout = 0.0
        provider.position_embedding_type = "mrope"
        provider.rotary_base = text.rope_parameters["rope_theta"]
        provider.mrope_section = list(text.rope_parameters["mrope_section"])
        provider.share_embeddings_and_output_weights = bool(config.tie_word_embeddings)
        provider.vision_config = config.vision_config
        provider.image_token_id, provider.video_token_id = config.image_token_id, config.video_token_id
        return provider

    def mapping_registry(self) -> MegatronMappingRegistry:
        mappings = [AutoMapping(megatron_param=ours, hf_param=theirs) for ours, theirs in SAME_SHAPE.items()]
        for part in ("weight", "bias"):
            q, k, v = (f"{THERE}self_attn.{name}_proj.{part}" for name in "qkv")
            mappings.append(QKVMapping(megatron_param=f"{HERE}self_attention.linear_qkv.{part}", q=q, k=k, v=v))
        gate, up = (f"{THERE}mlp.{name}_proj.weight" for name in ("gate", "up"))
        mappings.append(GatedMLPMapping(megatron_param=f"{HERE}mlp.linear_fc1.weight", gate=gate, up=up))
        mappings.append(ReplicatedMapping(megatron_param="visual.**", hf_param="visual.**"))
        return MegatronMappingRegistry(*mappings)


@MegatronModelBridge.register_bridge(source=Qwen2_5_VLForConditionalGeneration, target=Qwen25VLMegatronModel)
class Qwen25VLBridge(Qwen2VLBridge):
    PROVIDER = Qwen25VLProvider


BRIDGES = {Qwen2VLForConditionalGeneration: Qwen2VLBridge, Qwen2_5_VLForConditionalGeneration: Qwen25VLBridge}
