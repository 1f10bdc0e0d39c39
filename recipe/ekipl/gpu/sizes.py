"""Which Qwen2-VL, and how much of it is put through one update.

`python -m recipe.ekipl.gpu.sizes --size 2b --out <folder>` writes one that a training run can use: random weights with the
tokenizer and processor of the tiny model, whose few tokens are then its whole vocabulary.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from recipe.ekipl.tiny.model import END, PAD, SPECIAL, build_processor, build_tokenizer


@dataclass(frozen=True)
class Size:
    """A model's shape and the rows that go with it. Lengths are tokens; a range is drawn from evenly, ends included."""

    text: dict
    vision: dict
    tied: bool
    vocabulary: int
    special: tuple[int, int, int, int]
    """Token ids of <|vision_start|>, <|vision_end|>, <|image_pad|> and <|video_pad|>."""

    groups: int
    answers: int
    """N: of the policy and of each of the two experts."""

    kept: int
    """G"""

    grid: tuple[int, int, int]
    """Patches of a picture in time, height and width; four of them make one token."""

    prompt: tuple[int, int]
    """Text tokens of a prompt."""

    response: tuple[int, int]
    micro_batch: int
    """Rows in one forward pass."""


MROPE = {"rope_type": "default", "type": "mrope"}

SIZES = {
    "tiny": Size(
        text={
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {**MROPE, "mrope_section": [4, 6, 6], "rope_theta": 1e4},
        },
        vision={"depth": 3, "embed_dim": 128, "hidden_size": 128, "num_heads": 4, "mlp_ratio": 2},
        tied=False,
        vocabulary=600,
        special=(595, 596, 597, 598),
        groups=2,
        answers=3,
        kept=4,
        grid=(1, 6, 6),
        prompt=(8, 24),
        response=(4, 24),
        micro_batch=4,
    ),
    # config.json of Qwen/Qwen2-VL-2B-Instruct. Pictures as CLEVR's 480 x 320 after the processor's rounding to 28:
    # 476 x 308 pixels are 34 x 22 patches, 187 tokens.
    "2b": Size(
        text={
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {**MROPE, "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        },
        vision={"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
        tied=True,
        vocabulary=151936,
        special=(151652, 151653, 151655, 151656),
        groups=8,
        answers=8,
        kept=8,
        grid=(1, 22, 34),
        prompt=(100, 200),
        response=(100, 512),
        micro_batch=8,
    ),
}


def config_of(size: Size, pad: int = 0, end: int = 1) -> Qwen2VLConfig:
    """`pad`, `end`: token ids; no row of rows.py holds them."""
    vision_start, vision_end, image, video = size.special
    patches = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
    ends = {"bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad}
    return Qwen2VLConfig(
        text_config={**size.text, "vocab_size": size.vocabulary, "tie_word_embeddings": size.tied, **ends},
        vision_config={**size.vision, **patches},
        vision_start_token_id=vision_start,
        vision_end_token_id=vision_end,
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=size.tied,
        architectures=["Qwen2VLForConditionalGeneration"],
    )


def write(config: Qwen2VLConfig, folder: Path, seed: int, device: str) -> Path:
    """A Hugging Face folder without a tokenizer; weights are random and float32. Made on `device`, where 2B are quick."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = config.text_config.pad_token_id
    model.float().save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # the caller lives on beside the processes that load it; nothing happens without a GPU
    return folder


def write_trainable(size: Size, folder: Path, seed: int, device: str) -> Path:
    """The same with a tokenizer and a processor, for a run with vLLM; the vocabulary is exactly the tokenizer's."""
    tokenizer = build_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    special = tuple(ids[token] for token in ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"))
    fitting = replace(size, vocabulary=len(tokenizer), special=special)
    write(config_of(fitting, ids[PAD], ids[END]), folder, seed, device)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(write_trainable(SIZES[args.size], args.out, args.seed, device))


if __name__ == "__main__":
    main()
