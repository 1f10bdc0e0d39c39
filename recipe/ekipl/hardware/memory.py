"""Memory per GPU, phase by phase, of a run that trains and rolls out on the same GPUs. No torch.

The terms of FSDP follow what measure_memory.py counts tensor by tensor; docs/hardware.md compares. Those of Megatron follow
its documentation (bfloat16 weights, float32 gradients, distributed optimizer, full recomputation) and verl's code; only the bytes of
its logits were counted.
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

MEGATRON_LOGITS, MEGATRON_LOGITS_WITH_ENTROPY = 8, 12
"""Of Megatron, which gives float32 logits (megatron/core/transformer/module.py, Float16Module): they and their gradient before and
after the division by the temperature (2 less without a gradient); or they, a copy and a softmax for the entropy
(verl/workers/engine/megatron/transformer_impl.py, _lm_head_logits_processor)."""


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
    acts = Activations(shape, _log_prob_tokens(config, rollout))
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
    """Of a rank of the first pipeline stage, which has the vision tower; the language model is split TP x PP. What is on the
    GPU when: verl/workers/engine/base.py, BaseEngineCtx."""
    actor, rollout, ref = (config.actor_rollout_ref[name] for name in ("actor", "rollout", "ref"))
    tensor, pipeline = actor.megatron.tensor_model_parallel_size, actor.megatron.pipeline_model_parallel_size
    here = shape.text.parameters / (tensor * pipeline) + shape.vision.parameters
    # the reference is a second bfloat16 model without optimizer (verl/workers/engine_workers.py, init_model; forward_only)
    weights, reference, gradients = 2 * here, 2 * here * actor.use_kl_loss, 4 * here
    optimizer = 12 * here / (gpus / (tensor * pipeline))
    vllm = rollout.gpu_memory_utilization * gpu_bytes
    awake = {} if rollout.free_cache_engine else {"vLLM": vllm}
    kept = {
        "weights": weights * (not actor.megatron.param_offload),
        "reference": reference * (not ref.megatron.param_offload),
        "gradients": gradients * (not actor.megatron.param_offload),
        "optimizer": optimizer * (not actor.megatron.optimizer_offload),
    }
    yield Phase("rollout", {**kept, "vLLM": vllm, "other": OVERHEAD})
    # one after the other, of the policy with its entropy (verl/trainer/ppo/v1/trainer_base.py, _compute_old_log_prob)
    passes = [{**kept, "weights": weights, **_forward(config, shape, rollout, MEGATRON_LOGITS_WITH_ENTROPY)}]
    if reference:
        passes.append({**kept, "reference": reference, **_forward(config, shape, ref, MEGATRON_LOGITS)})
    yield max(
        (Phase("log-probabilities", {**each, **awake, "other": OVERHEAD}) for each in passes), key=lambda p: p.total
    )
    acts = Activations(shape, _tokens(config, actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu))
    activations = (acts.saved_text + max(acts.layer, acts.logits(MEGATRON_LOGITS))) / tensor + acts.saved_vision
    training = {"weights": weights, "reference": kept["reference"], "gradients": gradients, "optimizer": optimizer}
    work = {"pictures": acts.inputs, "activations": activations}
    yield Phase("update", {**training, **work, **awake, "other": OVERHEAD})


def _forward(config: DictConfig, shape: ModelShape, block: DictConfig, bytes_each: int) -> dict[str, float]:
    """Of Megatron's log-probabilities under the limits of `block`, actor_rollout_ref.rollout or .ref."""
    acts = Activations(shape, _log_prob_tokens(config, block))
    tensor = config.actor_rollout_ref.actor.megatron.tensor_model_parallel_size
    return {"pictures": acts.inputs, "activations": (acts.layer / 2 + acts.logits(bytes_each)) / tensor}


def _log_prob_tokens(config: DictConfig, block: DictConfig) -> float:
    return _tokens(config, block.log_prob_use_dynamic_bsz, block.log_prob_max_token_len_per_gpu)


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
