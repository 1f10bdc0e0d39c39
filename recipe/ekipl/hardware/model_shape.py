"""Sizes of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL, from its config.json or from a table of the published ones. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ekipl_rollout.errors import SettingsError

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
TABLE = Path(__file__).with_name("known_models.yaml")
MERGE = 4
"""Patches that become one token of the language model (spatial_merge_size 2, squared)."""


@dataclass(frozen=True)
class TextShape:
    """The language model."""

    vocabulary: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    tied: bool
    """The output head is the input embedding."""

    qk_norm: bool
    """Qwen3: queries and keys are normalised, and projections have no bias."""

    @property
    def block(self) -> int:
        """Parameters of one layer."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        attention = 2 * self.hidden * queries + 2 * self.hidden * keys
        extra = 2 * self.head_size if self.qk_norm else queries + 2 * keys
        return attention + extra + 3 * self.hidden * self.ffn + 2 * self.hidden

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self.embedding * (1 if self.tied else 2) + self.layers * self.block + self.hidden


@dataclass(frozen=True)
class VisionShape:
    """The tower that turns patches into tokens."""

    family: str
    depth: int
    width: int
    ffn: int
    out: int
    """Width of the language model."""

    patch: int
    positions: int = 0
    """Learned positions (Qwen3)."""

    deepstack: int = 0
    """Extra mergers (Qwen3)."""

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: two frames of three colours."""
        return 2 * 3 * self.patch * self.patch

    @property
    def block(self) -> int:
        width, ffn = self.width, self.ffn
        attention = 4 * width * width + 4 * width
        if self.family == "qwen2_5_vl":  # gated, with RMS norms
            return attention + 3 * width * ffn + 2 * ffn + width + 2 * width
        return attention + 2 * width * ffn + ffn + width + 4 * width

    @property
    def ends(self) -> int:
        """Parameters outside the blocks: patch embedding, mergers, positions."""
        merged = MERGE * self.width
        merger = merged * merged + merged + merged * self.out + self.out
        norm = self.width if self.family == "qwen2_5_vl" else 2 * self.width
        bias = self.width if self.family == "qwen3_vl" else 0
        embedding = self.width * self.patch_values + bias + self.positions * self.width
        return embedding + merger + norm + self.deepstack * (merger + 2 * merged)

    @property
    def parameters(self) -> int:
        return self.depth * self.block + self.ends


@dataclass(frozen=True)
class ModelShape:
    text: TextShape
    vision: VisionShape

    @property
    def parameters(self) -> int:
        return self.text.parameters + self.vision.parameters


def shape_of(model: str) -> ModelShape:
    """Of a Hugging Face folder or of a model in the table. Raises SettingsError for anything else."""
    file = Path(model).expanduser() / "config.json"
    if file.is_file():
        return read_shape(json.loads(file.read_text()), str(file))
    known = yaml.safe_load(TABLE.read_text())
    if model in known:
        return read_shape(known[model], model)
    raise SettingsError(
        f"actor_rollout_ref.model.path={model} is neither a folder with a config.json nor a model whose sizes are known "
        f"({', '.join(known)}), so that its memory cannot be estimated. Download it and give the folder."
    )


def read_shape(config: Mapping[str, Any], at: str) -> ModelShape:
    """From a config.json, with the language model's sizes in `text_config` or, as older files have them, beside it."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise SettingsError(f"{at}: model_type={family} is not one of {', '.join(FAMILIES)}.")
    text, vision = {**config, **config.get("text_config", {})}, config["vision_config"]
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    try:
        return ModelShape(_read_text(text, bool(tied), family == "qwen3_vl"), _read_vision(vision, family))
    except KeyError as missing:
        raise SettingsError(f"{at} has no {missing}, which decides the size of the model.") from None


def _read_text(text: Mapping[str, Any], tied: bool, qk_norm: bool) -> TextShape:
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    return TextShape(
        vocabulary=text["vocab_size"],
        hidden=hidden,
        ffn=text["intermediate_size"],
        layers=text["num_hidden_layers"],
        heads=heads,
        kv_heads=text["num_key_value_heads"],
        head_size=text.get("head_dim") or hidden // heads,
        tied=tied,
        qk_norm=qk_norm,
    )


def _read_vision(vision: Mapping[str, Any], family: str) -> VisionShape:
    """Released files leave out what is transformers' default."""
    if family == "qwen2_vl":
        width = vision["embed_dim"]
        ffn, out = int(width * vision.get("mlp_ratio", 4)), vision["hidden_size"]
    else:
        width, out = vision["hidden_size"], vision.get("out_hidden_size", 3584)
        ffn = vision.get("intermediate_size", 3420)
    return VisionShape(
        family=family,
        depth=vision.get("depth", 32),
        width=width,
        ffn=ffn,
        out=out,
        patch=vision.get("patch_size", 14),
        positions=vision.get("num_position_embeddings", 0),
        deepstack=len(vision.get("deepstack_visual_indexes", ())),
    )
