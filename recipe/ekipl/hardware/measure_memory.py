"""What an update of one micro-batch really allocates, counted tensor by tensor; checks memory.py without a GPU.

    python -m recipe.ekipl.hardware.measure_memory --model models/tiny --gpus 1 --tokens 4096 --pictures 0.5
    python -m recipe.ekipl.hardware.measure_memory --model Qwen/Qwen2-VL-7B-Instruct --gpus 8 --tokens 8192 --shapes-only

Builds the model, lets verl shard it (FSDP2, one of `--gpus` ranks, with a process group that moves nothing), and runs forward
and backward under torch's own FSDPMemTracker. `--shapes-only` does it with tensors that have a shape and no memory, for models
that do not fit here; pictures are then left out, because the tower needs values. The loss keeps the logits and overwrites
them with their gradient, as the flash-attention cross-entropy that verl takes on a GPU does. Prints one JSON object, bytes.
"""

import argparse
import contextlib
import json
import types
from collections.abc import Iterator
from typing import Any

import torch
import yaml

from recipe.ekipl.hardware.model_shape import MERGE, TABLE

TOKENS_PER_PICTURE = 9


class LogProbability(torch.autograd.Function):
    """The memory of flash-attention's cross_entropy_loss with inplace_backward (verl/utils/torch_functional.py)."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits)
        return logits[:, 0].float()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (logits,) = ctx.saved_tensors
        return logits.mul_(gradient[:, None].to(logits.dtype))


def hf_config(model: str) -> Any:
    """The transformers config of a folder or of a model in the table."""
    from transformers import AutoConfig

    known = yaml.safe_load(TABLE.read_text())
    if model not in known:
        return AutoConfig.from_pretrained(model)
    entry = dict(known[model])
    text = {**{k: v for k, v in entry.items() if k != "vision_config"}, **entry.get("text_config", {})}
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    sections = [head // 8, 3 * head // 16, 3 * head // 16]
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6}
    for name in ("model_type", "text_config"):
        text.pop(name, None)
    return AutoConfig.for_model(
        entry["model_type"],
        text_config=text,
        vision_config=entry["vision_config"],
        tie_word_embeddings=entry["tie_word_embeddings"],
    )


def text_only(model: Any, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> dict[str, Any]:
    """The forward of these models without the search for pictures, which needs the values of `input_ids`."""
    embedded = model.get_input_embeddings()(input_ids)
    outputs = model.model.language_model(inputs_embeds=embedded, position_ids=position_ids, use_cache=use_cache)
    return {"logits": model.lm_head(outputs.last_hidden_state)}


def silent_ranks(gpus: int) -> Any:
    """A device mesh of ranks of which only this one exists."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=gpus, store=FakeStore())
    return init_device_mesh("cpu", (gpus,))


def sharded_model(config: Any, mesh: Any, pictures: float) -> torch.nn.Module:
    """As verl's FSDP engine builds it: float32 shards, bfloat16 compute, gradient checkpointing."""
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from transformers import AutoModelForImageTextToText
    from verl.utils.fsdp_utils import apply_fsdp2

    model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    if not pictures:
        model.model.visual = torch.nn.Identity()
        model.forward = types.MethodType(text_only, model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=True)
    apply_fsdp2(model, {"mesh": mesh, "mp_policy": policy}, {})
    return model


def micro_batch(config: Any, tokens: int, pictures: float) -> dict[str, Any]:
    """`tokens` packed tokens, a share of them from pictures of TOKENS_PER_PICTURE tokens each."""
    count = int(tokens * pictures) // TOKENS_PER_PICTURE
    ids = torch.randint(10, 500, (1, tokens))
    inputs = {"input_ids": ids, "position_ids": torch.arange(tokens).view(1, 1, tokens).expand(3, 1, tokens)}
    if count:
        vision = config.vision_config
        ids[ids == config.image_token_id] = config.image_token_id + 1
        ids[0, : count * TOKENS_PER_PICTURE] = config.image_token_id
        inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
        values = 3 * vision.temporal_patch_size * vision.patch_size**2
        inputs["pixel_values"] = torch.randn(count * TOKENS_PER_PICTURE * MERGE, values)
        inputs["image_grid_thw"] = torch.tensor([[1, 6, 6]] * count)
    return inputs


@contextlib.contextmanager
def no_memory(wanted: bool) -> Iterator[None]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) if wanted else contextlib.nullcontext():
        yield


def measure(model: str, gpus: int, tokens: int, pictures: float, shapes_only: bool) -> dict[str, Any]:
    """Bytes on one rank: the peak of forward and backward, part by part, and the optimizer's states beside it."""
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

    mesh = silent_ranks(gpus)
    with no_memory(shapes_only):
        config = hf_config(model)
        sharded = sharded_model(config, mesh, pictures)
        tracker = FSDPMemTracker(sharded)
        inputs = micro_batch(config, tokens, pictures)
        tracker.track_inputs(tuple(inputs.values()))
        with tracker, torch.autocast("cpu", torch.bfloat16):
            logits = sharded(**inputs, use_cache=False)["logits"].squeeze(0)
            log_probabilities = LogProbability.apply(logits)
            del logits
            log_probabilities.mean().backward()
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
        parameters = sum(p.numel() for p in sharded.parameters())
        shard = sum(p.to_local().numel() for p in sharded.parameters())
    parts = {str(getattr(kind, "value", kind)).lower().replace(" ", "_"): size for kind, size in peak.items()}
    return {
        "model": model,
        "parameters": parameters,
        "gpus": gpus,
        "tokens": tokens,
        "picture_share": pictures,
        "peak": {name: size for name, size in parts.items() if size},
        "optimizer": 8 * shard,  # AdamW's two float32 moments
        "total": parts["total"] + 8 * shard,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder, or a name in known_models.yaml")
    parser.add_argument("--gpus", type=int, default=1, help="ranks that share the weights (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=4096, help="of the micro-batch (default: %(default)s)")
    parser.add_argument("--pictures", type=float, default=0.0, help="share of the tokens that come from pictures")
    parser.add_argument("--shapes-only", action="store_true", help="no memory, no pictures; for models of any size")
    args = parser.parse_args()
    if args.shapes_only and args.pictures:
        parser.error("--shapes-only cannot run the picture tower. Leave out --pictures.")
    print(json.dumps(measure(args.model, args.gpus, args.tokens, args.pictures, args.shapes_only)))


if __name__ == "__main__":
    main()
