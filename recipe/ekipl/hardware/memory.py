"""Memory per GPU, phase by phase, of a run that trains and rolls out on the same GPUs. No torch.

The terms of FSDP follow what measure_memory.py counts tensor by tensor; docs/hardware.md compares. Those of Megatron follow
its documentation (bfloat16 weights, float32 gradients, distributed optimizer, full recomputation) and were not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.ekipl.hardware.model_shape import MERGE, ModelShape

GIB = 1024**3

OVERHEAD = 3 * GIB
"""Assumed: CUDA context, NCCL, what a sleeping vLLM keeps, fragmentation. Not measured here."""

VLLM_WORKSPACE = 2 * GIB
"""Assumed: vLLM's own activations and CUDA graphs."""

PICTURE_SHARE = 0.5
"""Assumed share of the tokens that come from pictures (Reason-RFT: at most 480000 pixels, that is 612 tokens, each)."""

LOGITS, LOGITS_WITH_ENTROPY = 2, 6
"""Bytes a token and word: bfloat16 logits that their gradient overwrites; beside them softmax and product for the entropy."""


@dataclass(frozen=True)
class Phase:
    """Bytes on one GPU while something is done."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Activations:
    """Of `tokens` packed tokens, of which the share `pictures` comes from pictures; gradient checkpointing. Bytes."""

    shape: ModelShape
    tokens: float
    pictures: float = PICTURE_SHARE

    @property
    def inputs(self) -> float:
        """float32 pictures as the processor makes them."""
        return self._patches * 4 * self.shape.vision.patch_values

    @property
    def saved_text(self) -> float:
        """The input of every layer, the last norm, positions."""
        text = self.shape.text
        return self.tokens * (2 * text.hidden * text.layers + 8 * text.hidden + 12 * text.head_size)

    @property
    def saved_vision(self) -> float:
        """The input of every layer, the patches in bfloat16, the merger."""
        vision = self.shape.vision
        return self._patches * (2 * vision.width * vision.depth + 2 * vision.patch_values + 6 * vision.width)

    @property
    def layer(self) -> float:
        """While one layer of the language model is computed again and differentiated."""
        return self.tokens * (24 * self.shape.text.hidden + 12 * self.shape.text.ffn)

    def logits(self, bytes_each: int) -> float:
        return self.tokens * bytes_each * self.shape.text.vocabulary

    @property
    def _patches(self) -> float:
        return self.tokens * self.pictures * MERGE


def forward_backward(shape: ModelShape, tokens: float, pictures: float, gpus: int) -> dict[str, float]:
    """FSDP2 on `gpus` ranks: the larger of two peaks, when the backward begins and when all gradients are there."""
    acts = Activations(shape, tokens, pictures)
    weights, root, block = 4 * shape.parameters / gpus, _root(shape), 2.0 * shape.text.block
    shared = {"weights": weights, "pictures": acts.inputs}
    begins = {
        "gathered": root + 2 * block,
        "gradients": root,
        "activations": acts.saved_text + acts.saved_vision + max(acts.logits(LOGITS), acts.layer),
    }
    ends = {
        "gathered": root + block,
        "gradients": weights + 3 * block,  # the shards, and a layer's in bfloat16 and float32
        "activations": acts.saved_vision + acts.layer,
    }
    larger = begins if sum(begins.values()) > sum(ends.values()) else ends
    return {**shared, **larger}


def _root(shape: ModelShape) -> float:
    """bfloat16 bytes of what FSDP keeps gathered: the head, and both ends of the vision tower."""
    return 2.0 * (shape.text.embedding + shape.vision.ends)


def fsdp_phases(config: DictConfig, shape: ModelShape, gpus: int, gpu_bytes: float) -> Iterator[Phase]:
    """verl's phases in the order of a step (verl/trainer/ppo/v1)."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    share = 4 * shape.parameters / gpus
    away = actor.fsdp_config.param_offload, actor.fsdp_config.optimizer_offload
    vllm = rollout.gpu_memory_utilization * gpu_bytes
    awake = {} if rollout.free_cache_engine else {"vLLM": vllm}
    resident = {"weights": share * (not away[0]), "optimizer": 2 * share * (not away[1])}
    yield Phase("rollout", {**resident, "vLLM": vllm, "other": OVERHEAD})
    tokens = _tokens(config, rollout.log_prob_use_dynamic_bsz, rollout.log_prob_max_token_len_per_gpu)
    acts = Activations(shape, tokens)
    forward = {
        "weights": share,
        "optimizer": resident["optimizer"],
        "gathered": _root(shape) + 4.0 * shape.text.block,
        "pictures": acts.inputs,
        "activations": acts.layer / 2 + acts.logits(LOGITS_WITH_ENTROPY),
    }
    yield Phase("log-probabilities", {**forward, **awake, "other": OVERHEAD})
    tokens = _tokens(config, actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu)
    passes = forward_backward(shape, tokens, PICTURE_SHARE, gpus)
    yield Phase("update", {**passes, "optimizer": 2 * share, **awake, "other": OVERHEAD})
    step = {"weights": share, "gradients": share, "optimizer": 2 * share, "temporary": share}
    yield Phase("optimizer step", {**step, **awake, "other": OVERHEAD})


def megatron_phases(config: DictConfig, shape: ModelShape, gpus: int, gpu_bytes: float) -> Iterator[Phase]:
    """Of a rank of the first pipeline stage, which has the vision tower; the language model is split TP x PP."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    tensor, pipeline = (
        actor.megatron.tensor_model_parallel_size,
        actor.megatron.pipeline_model_parallel_size,
    )
    here = shape.text.parameters / (tensor * pipeline) + shape.vision.parameters
    data = gpus / (tensor * pipeline)
    weights, optimizer = 2 * here, 12 * here / data
    vllm = rollout.gpu_memory_utilization * gpu_bytes
    awake = {} if rollout.free_cache_engine else {"vLLM": vllm}
    reference = weights * config.actor_rollout_ref.actor.use_kl_loss
    kept = {
        "weights": weights * (not actor.megatron.param_offload),
        "reference": reference * (not config.actor_rollout_ref.ref.megatron.param_offload),
        "gradients": 4 * here * (not actor.megatron.param_offload),
        "optimizer": optimizer * (not actor.megatron.optimizer_offload),
    }
    yield Phase("rollout", {**kept, "vLLM": vllm, "other": OVERHEAD})
    tokens = _tokens(config, rollout.log_prob_use_dynamic_bsz, rollout.log_prob_max_token_len_per_gpu)
    acts = Activations(shape, tokens)
    # policy and reference are loaded one after the other (verl/workers/engine/megatron/transformer_impl.py: eval_mode)
    loaded = {**kept, "weights": weights} if kept["reference"] or not reference else {**kept, "reference": reference}
    work = {"pictures": acts.inputs, "activations": (acts.layer / 2 + acts.logits(LOGITS_WITH_ENTROPY)) / tensor}
    yield Phase("log-probabilities", {**loaded, **work, **awake, "other": OVERHEAD})
    tokens = _tokens(config, actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu)
    acts = Activations(shape, tokens)
    activations = (acts.saved_text + max(acts.layer, acts.logits(LOGITS_WITH_ENTROPY))) / tensor + acts.saved_vision
    training = {**kept, "weights": weights, "gradients": 4 * here, "optimizer": optimizer}
    work = {"pictures": acts.inputs, "activations": activations}
    yield Phase("update", {**training, **work, **awake, "other": OVERHEAD})


def _tokens(config: DictConfig, dynamic: bool, limit: int) -> float:
    """Tokens of a micro-batch: the limit of dynamic batches, or one row of full length."""
    return limit if dynamic else config.data.max_prompt_length + config.data.max_response_length


@dataclass(frozen=True)
class KVCache:
    """Of one vLLM engine."""

    bytes: float
    tokens: int
    sequences: int
    """Of full length, at the same time."""


def kv_cache(config: DictConfig, shape: ModelShape, gpu_bytes: float) -> KVCache:
    """What gpu_memory_utilization leaves beside the bfloat16 weights, on all GPUs of one engine."""
    rollout = config.actor_rollout_ref.rollout
    split = rollout.tensor_model_parallel_size
    free = split * (rollout.gpu_memory_utilization * gpu_bytes - VLLM_WORKSPACE) - 2 * shape.parameters
    tokens = int(max(free, 0) / kv_bytes(shape))
    return KVCache(free, tokens, tokens // (config.data.max_prompt_length + config.data.max_response_length))


def kv_bytes(shape: ModelShape) -> int:
    """Of one token: keys and values of all layers in bfloat16."""
    return 2 * 2 * shape.text.layers * shape.text.kv_heads * shape.text.head_size


def phases(config: DictConfig, shape: ModelShape, gpus: int, gpu_bytes: float) -> list[Phase]:
    megatron = config.actor_rollout_ref.actor.strategy == "megatron"
    return list((megatron_phases if megatron else fsdp_phases)(config, shape, gpus, gpu_bytes))
