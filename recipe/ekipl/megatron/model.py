"""Qwen2-VL as a Megatron-Core model: transformers' vision tower, Megatron-Core's decoder, M-RoPE.

Where what lives follows Megatron-Bridge's Qwen2.5-VL (megatron/bridge/models/qwen_vl/modeling_qwen25_vl.py, Apache-2.0,
NVIDIA). New here: rows are packed, positions skip padding, and positions exist without pictures.

The vision tower is on the first pipeline stage, whole on every tensor-parallel rank; its gradients are averaged over
these. Context parallelism and videos are refused.
"""

import types

import torch
from megatron.bridge.utils.common_utils import hook_hf_module_setattr_for_tp_grad_sync
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import scatter_to_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel, Qwen2VLModel

from recipe.ekipl.megatron import seams

TEXT, IMAGE = 0, 1  # transformers' mm_token_type_ids

seams.require_parameters(
    Qwen2VLModel.get_rope_index, "input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask"
)
seams.require_parameters(Qwen2VLModel.get_placeholder_mask, "input_ids", "inputs_embeds", "image_features")


class Qwen2VLMegatronModel(MegatronModule):
    """One pipeline stage. `config` is the provider of bridge.py."""

    VISION = Qwen2VisionTransformerPretrainedModel

    def __init__(self, config, pre_process: bool = True, post_process: bool = True, vp_stage: int | None = None):
        super().__init__(config=config)
        refuse(config)
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        if pre_process:
            self.visual = self.VISION._from_config(config.vision_config)
            hook_hf_module_setattr_for_tp_grad_sync(self.visual)
            if config.recompute_granularity == "full":
                self.visual.gradient_checkpointing_enable({"use_reentrant": False})
        self.language_model = config.provide_language_model(pre_process, post_process, vp_stage)
        # the optimizer's gradient finalization looks for these two on the outermost module
        self.share_embeddings_and_output_weights = config.share_embeddings_and_output_weights
        self.shared_embedding_or_output_weight = self.language_model.shared_embedding_or_output_weight
        for name in ("get_placeholder_mask", "get_rope_index", "get_vision_position_ids"):
            setattr(self, name, types.MethodType(getattr(Qwen2VLModel, name), self))

    @property
    def decoder(self):
        return self.language_model.decoder

    def set_input_tensor(self, input_tensor: Tensor) -> None:
        self.language_model.set_input_tensor(input_tensor)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        labels: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
        loss_mask: Tensor | None = None,
        runtime_gather_output: bool | None = None,
    ) -> Tensor:
        """verl hands a vision-language model rows [b, s], padded on the right, in both of its formats, and expects
        logits [b, s, v], or [1, t, v] of the packed rows when `packed_seq_params` says how they lie.

        `attention_mask` [b, s] is true on tokens; `position_ids` are computed here, on every stage, from the ids.
        """
        valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        positions = self.positions(input_ids, valid, image_grid_thw)
        hidden = self.embed(input_ids, pixel_values, image_grid_thw) if self.pre_process else None
        if packed_seq_params is not None:
            where, length = slots(valid, packed_seq_params)
            positions = positions.new_zeros(3, length).index_copy(1, where, positions[:, valid])[:, None]
            if hidden is not None:
                hidden = hidden.new_zeros(length, hidden.shape[-1]).index_copy(0, where, hidden[valid])[None]
        if hidden is not None:
            hidden = hidden.transpose(0, 1).contiguous()  # Megatron-Core's [s, b, h]
            if self.config.sequence_parallel:
                hidden = scatter_to_sequence_parallel_region(hidden)
        return self.language_model(
            input_ids=None,
            position_ids=positions,
            attention_mask=None,  # causal, and padding is on the right
            decoder_input=hidden,
            labels=labels,
            loss_mask=loss_mask,
            runtime_gather_output=runtime_gather_output,
            packed_seq_params=packed_seq_params,
        )

    def positions(self, input_ids: Tensor, valid: Tensor, image_grid_thw: Tensor | None) -> Tensor:
        """M-RoPE positions [3, b, s]: time, height and width; padding gets 0."""
        if image_grid_thw is None:  # transformers computes these only for rows with pictures
            return ((valid.long().cumsum(-1) - 1) * valid).expand(3, -1, -1)
        kinds = torch.where(input_ids == self.config.image_token_id, IMAGE, TEXT)
        return self.get_rope_index(input_ids, kinds, image_grid_thw, attention_mask=valid)[0]

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None, image_grid_thw: Tensor | None) -> Tensor:
        """Embeddings [b, s, h], with the vision tower's where a picture stands."""
        hidden = self.language_model.embedding(input_ids=input_ids, position_ids=None).transpose(0, 1)
        if pixel_values is None:
            return hidden
        seen = self.visual(pixel_values.to(self.visual.dtype), grid_thw=image_grid_thw, return_dict=True).pooler_output
        seen = seen.to(hidden.device, hidden.dtype)
        mask, _ = self.get_placeholder_mask(input_ids, inputs_embeds=hidden, image_features=seen)
        return hidden.masked_scatter(mask, seen)


class Qwen25VLMegatronModel(Qwen2VLMegatronModel):
    """Qwen2.5-VL differs in the vision tower only, as long as there are no videos."""

    VISION = Qwen2_5_VisionTransformerPretrainedModel


def slots(valid: Tensor, packed: PackedSeqParams) -> tuple[Tensor, int]:
    """Place of each valid token, row by row, in the packed sequence, and that sequence's length.

    Row i begins at cu_seqlens[i]; the padded variant leaves gaps so that each row's length divides by the
    tensor-parallel size (verl/models/mcore/util.py: preprocess_thd_engine).
    """
    starts = packed.cu_seqlens_q if packed.cu_seqlens_q_padded is None else packed.cu_seqlens_q_padded
    places = starts[:-1, None] + valid.long().cumsum(-1) - 1
    return places[valid], int(starts[-1])


def refuse(config) -> None:
    """Raises ValueError for settings under which the results would be wrong without a word."""
    if config.context_parallel_size > 1:
        raise ValueError(
            f"context_parallel_size={config.context_parallel_size}: this model does not split a row. Set 1."
        )
    if config.apply_rope_fusion:
        raise ValueError(
            "apply_rope_fusion=True: the fused kernel for packed rows begins every row at the first position of the "
            "packed sequence, which is wrong for M-RoPE. Leave it False."
        )
