"""The rows of one EKIPL update. Everything is drawn from a seed, so that two processes hold the same rows."""

import random
from dataclasses import dataclass

import torch

from ekipl_rollout.answer import POLICY, Candidate
from ekipl_rollout.group_filter import select
from ekipl_rollout.keep.spread import mean_and_std
from recipe.ekipl.gpu.sizes import Size

SHARE_RIGHT = {POLICY: 0.3, "expert_a": 0.42, "expert_b": 0.26}
"""Of each source's answers; the experts' are what the paper reports for GPT-4o and Gemini on TRANCE."""

PATCH = 3 * 2 * 14 * 14  # channels, frames, height and width of a patch: one row of pixel_values
EPSILON = 1e-6  # added to std, as verl's GRPO does


@dataclass(frozen=True)
class Row:
    """One kept answer with its prompt. P prompt tokens (the picture's among them), R response tokens."""

    prompt: torch.Tensor
    """[P] ids: text, <|vision_start|>, the picture's tokens, <|vision_end|>, text."""

    response: torch.Tensor
    """[R] ids."""

    positions: torch.Tensor
    """[4, P+R]: position in the text, then M-RoPE's time, height and width."""

    pixels: torch.Tensor
    """[patches, PATCH] float32."""

    grid: torch.Tensor
    """[1, 3] patches in time, height and width."""

    source: str
    advantage: dict[str, float]
    """By `ekipl.advantage`: `selected` (the paper's Eq. 1) and `all` (mean and std over all candidates)."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.response)


def draw(size: Size, seed: int) -> list[Row]:
    """`groups` x `kept` rows. A group shares prompt and picture; its answers come from all three sources."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    return [row for _ in range(size.groups) for row in _group(size, rng, generator)]


def _group(size: Size, rng: random.Random, generator: torch.Generator) -> list[Row]:
    prompt, before = _prompt(size, rng, generator)
    grid = torch.tensor([size.grid])
    pixels = torch.randn(int(grid.prod()), PATCH, generator=generator)
    sources = [source for source in SHARE_RIGHT for _ in range(size.answers)]
    candidates = [Candidate(name, i, float(rng.random() < SHARE_RIGHT[name])) for i, name in enumerate(sources)]
    kept = select(candidates, size.kept).kept
    scales = {"selected": mean_and_std([c.score for c in kept]), "all": mean_and_std([c.score for c in candidates])}
    rows = []
    for candidate in kept:
        response = _text(size, rng.randint(*size.response), generator)
        advantage = {name: (candidate.score - mean) / (std + EPSILON) for name, (mean, std) in scales.items()}
        positions = mrope_positions(size.grid, before, len(prompt) + len(response))
        rows.append(Row(prompt, response, positions, pixels, grid, candidate.source, advantage))
    return rows


def _text(size: Size, length: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(2, size.special[0], (length,), generator=generator)


def _prompt(size: Size, rng: random.Random, generator: torch.Generator) -> tuple[torch.Tensor, int]:
    """[P] ids, and how many of them come before the picture's own."""
    start, end, image, _ = (torch.tensor([token]) for token in size.special)
    text = _text(size, rng.randint(*size.prompt), generator)
    cut = rng.randint(1, len(text) - 1)
    picture = image.repeat(size.grid[0] * size.grid[1] * size.grid[2] // 4)
    return torch.cat([text[:cut], start, picture, end, text[cut:]]), cut + 1


def mrope_positions(grid: tuple[int, int, int], before: int, length: int) -> torch.Tensor:
    """[4, length] for a sequence with one picture that starts at token `before` (Qwen2-VL, section 2.1).

    A picture's tokens share one time and count height and width; text goes on after the largest of them.
    """
    time, height, width = grid[0], grid[1] // 2, grid[2] // 2
    axes = torch.meshgrid(torch.arange(time), torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([axis.flatten() for axis in axes]) + before
    rest = length - before - picture.shape[1]
    after = torch.arange(rest).expand(3, -1) + before + max(time, height, width)
    space = torch.cat([torch.arange(before).expand(3, -1), picture, after], dim=1)
    return torch.cat([torch.arange(length)[None], space])
