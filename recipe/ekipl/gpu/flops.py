"""FLOPs of a Qwen2-VL from its shapes: what its matrices must do, with nothing computed twice.

A matrix of n x m costs 2nm for each token. Attention costs 4 L^2 d over all heads for a sequence of L; the language model
looks back only, so half of that counts; a picture's patches all see each other. An update is three times the forward
pass (backward has two products for each of forward's). Norms, activations and softmax are left out, as is usual, and
so is the embedding, which looks up. Recomputation by gradient checkpointing does not count: MFU is about what was asked
for. (verl's own counter leaves the vision tower out of a Qwen2-VL and counts the embedding as a matrix.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import Qwen2VLConfig

BACKWARD = 2  # times the forward pass


@dataclass(frozen=True)
class Flops:
    """Of one forward pass."""

    text: float
    text_attention: float
    vision: float

    @property
    def forward(self) -> float:
        return self.text + self.text_attention + self.vision

    @property
    def update(self) -> float:
        return (1 + BACKWARD) * self.forward


def count(config: Qwen2VLConfig, lengths: Sequence[int], pictures: Sequence[int]) -> Flops:
    """`lengths`: tokens of each sequence, without padding. `pictures`: patches of each picture."""
    text = config.text_config
    heads = text.hidden_size // text.num_attention_heads
    keys = heads * text.num_key_value_heads
    attention = text.hidden_size * (2 * text.hidden_size + 2 * keys)
    layer = attention + 3 * text.hidden_size * text.intermediate_size
    matrices = text.num_hidden_layers * layer + text.hidden_size * text.vocab_size
    looking_back = sum(length**2 for length in lengths) / 2
    return Flops(
        text=2 * matrices * sum(lengths),
        text_attention=4 * looking_back * text.hidden_size * text.num_hidden_layers,
        vision=_vision(config.vision_config, pictures),
    )


def _vision(vision, pictures: Sequence[int]) -> float:
    width, merge = vision.embed_dim, vision.spatial_merge_size**2
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * width
    block = (4 + 2 * vision.mlp_ratio) * width**2
    merger = ((merge * width) ** 2 + merge * width * vision.hidden_size) / merge  # one product for `merge` patches
    matrices = patch + vision.depth * block + merger
    return 2 * matrices * sum(pictures) + 4 * width * vision.depth * sum(patches**2 for patches in pictures)
