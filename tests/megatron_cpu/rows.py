"""A tiny model on disk, and rows as they are after the group has been chosen: some from the policy, some from experts.

Three questions (one picture, two pictures, none), four kept answers each, all of different lengths.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tensordict import TensorDict
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import left_right_2_no_padding

from ekipl_rollout.on_verl.advantage import ekipl_advantage, remember_groups
from ekipl_rollout.settings import AdvantageSettings

PROMPT, RESPONSE, KEPT = 96, 20, 4
QUESTIONS = (
    (1, "How many cubes are there?"),
    (2, "What changed between the pictures?"),
    (0, "How many corners has a cube?"),
)
REWARDS = (2.0, 1.0, 0.5, 0.0, 2.0, 2.0, 1.0, 1.5, 0.0, 0.5, 1.0, 0.0)
DROPPED_TOO = {"0": (0.7, 0.6), "1": (1.1, 0.5), "2": (0.3, 0.4)}  # mean and std over all candidates of a question


@dataclass
class Row:
    prompt: Tensor
    """[p] token ids, pictures as placeholders."""
    answer: Tensor
    """[r] token ids"""
    pictures: dict[str, Tensor]
    """pixel_values and image_grid_thw; empty without pictures"""
    positions: Tensor
    """[4, p + r]: along the text, then M-RoPE's time, height and width, by transformers"""

    @property
    def ids(self) -> Tensor:
        return torch.cat([self.prompt, self.answer])


def build_model(folder: Path, kind: str = "qwen2_vl", tied: bool = False) -> Path:
    """A random model of an even vocabulary, so that two tensor-parallel ranks can share it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration

    from recipe.ekipl.tiny.model import build_config, build_processor, build_tokenizer

    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    config.text_config.vocab_size = len(tokenizer) + len(tokenizer) % 2
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    model = Qwen2VLForConditionalGeneration
    if kind == "qwen2_5_vl":
        parts = config.to_dict()
        vision = {
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": 128, "num_heads": 2,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1],
        }  # fmt: skip
        text = {name: value for name, value in parts["text_config"].items() if name != "model_type"}
        tokens = {name: value for name, value in parts.items() if name.endswith("_token_id")}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **tokens)
        model = Qwen2_5_VLForConditionalGeneration
    model(config).float().save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


def picture(number: int) -> Image.Image:
    image = Image.new("RGB", (56 + 28 * (number % 2), 56), (200, 200, 200))
    ImageDraw.Draw(image).rectangle([5 * number, 5, 5 * number + 20, 30], fill=(220, 60 * number, 30))
    return image


def make_rows(folder: Path) -> list[Row]:
    processor, config = AutoProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config).model
    generator = torch.Generator().manual_seed(0)
    rows = []
    for pictures, question in QUESTIONS:
        images = [picture(number) for number in range(pictures)]
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        seen = processor(text=[text], images=images or None, return_tensors="pt")
        parts = {name: seen[name] for name in ("pixel_values", "image_grid_thw") if name in seen}
        for _ in range(KEPT):
            answer = torch.randint(8, 300, (RESPONSE - len(rows),), generator=generator)
            ids = torch.cat([seen["input_ids"][0], answer])
            along = torch.arange(len(ids))[None]
            rope = along.expand(3, -1)
            if parts:
                kinds = (ids == config.image_token_id).int()[None]
                rope = model.get_rope_index(ids[None], kinds, parts["image_grid_thw"])[0][:, 0]
            rows.append(Row(seen["input_ids"][0], answer, parts, torch.cat([along, rope])))
    return rows


def expected(folder: Path, rows: list[Row]) -> list[Tensor]:
    """Log-probabilities [r] of each answer by transformers, one row at a time, in float32."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    found = []
    for row in rows:
        kinds = {"mm_token_type_ids": (row.ids == model.config.image_token_id).int()[None]} if row.pictures else {}
        with torch.no_grad():
            logits = model(input_ids=row.ids[None], **row.pictures, **kinds).logits[0, :-1]
        chosen = logits.log_softmax(-1).gather(-1, row.ids[1:, None])[:, 0]
        found.append(chosen[-len(row.answer) :])
    return found


def batch(rows: list[Row], packed: bool, **fields: Tensor) -> TensorDict:
    """verl's batch without padding. `fields` are [b, RESPONSE]."""
    ids = torch.zeros(len(rows), PROMPT + RESPONSE, dtype=torch.long)
    mask, positions = torch.zeros_like(ids), torch.zeros(len(rows), 4, PROMPT + RESPONSE, dtype=torch.long)
    pictures = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        at = slice(PROMPT - len(row.prompt), PROMPT + len(row.answer))
        ids[i, at], mask[i, at], positions[i, :, at], pictures[i] = row.ids, 1, row.positions, dict(row.pictures)
    padded = {
        "input_ids": ids,
        "prompts": ids[:, :PROMPT],
        "responses": ids[:, PROMPT:],
        "attention_mask": mask,
        "response_mask": mask[:, PROMPT:],
        "position_ids": positions,
        "multi_modal_inputs": pictures,
        "temperature": torch.ones(len(rows)),
    }
    data = left_right_2_no_padding(DataProto.from_single_dict(padded).to_tensordict())
    for name, value in fields.items():
        data[name] = value.clone()
    tu.assign_non_tensor(
        data, use_dynamic_bsz=True, max_token_len_per_gpu=256, calculate_entropy=True, compute_loss=bool(fields),
        use_fused_kernels=False, global_batch_size=len(REWARDS), temperature=1.0, use_remove_padding=packed,
    )  # fmt: skip
    return data


def advantages(mask: Tensor, baseline: str) -> Tensor:
    """[b, RESPONSE] of the twelve rows: Eq. 1 over the kept answers, or over all candidates."""
    rewards = torch.zeros(mask.shape)
    rewards[:, 0] = torch.tensor(REWARDS)
    uids = np.array([str(i // KEPT) for i in range(len(REWARDS))])
    if baseline == "selected":
        return compute_grpo_outcome_advantage(rewards, mask, uids)[0]
    groups = {uid: {"all": statistics} for uid, statistics in DROPPED_TOO.items()}
    remember_groups(groups, AdvantageSettings(baseline="all", std="all"))
    return ekipl_advantage(rewards, mask, index=uids)[0]


def padded(values: list[Tensor]) -> Tensor:
    """[b, RESPONSE] from rows of different lengths."""
    return torch.stack([torch.nn.functional.pad(value, (0, RESPONSE - len(value))) for value in values])
