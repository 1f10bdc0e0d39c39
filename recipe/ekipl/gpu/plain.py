"""One EKIPL update in plain transformers and PyTorch: what verl's is held against.

Written from the formulas and not from verl: the clipped surrogate and the k3 KL term (paper, Eq. 2 and 3; Schulman,
"Approximating KL divergence"), averaged over the response tokens of the batch, with verl's dual clip, which bounds the
loss of a bad answer that has become likelier (Ye et al. 2020). AdamW on float32 weights; autocast for bf16.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2VLForConditionalGeneration

from recipe.ekipl.gpu.rows import Row, draw
from recipe.ekipl.gpu.side import Side
from recipe.ekipl.gpu.sizes import SIZES

CLIP, DUAL_CLIP, KL, GRADIENT_NORM = 0.2, 3.0, 0.005, 1.0
"""verl's defaults and the paper's KL coefficient: what config/ekipl_trainer.yaml composes to (on_verl.py checks it)."""


def token_loss(log_prob: torch.Tensor, old: torch.Tensor, ref: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """Loss of each token; all arguments have one shape."""
    ratio = (log_prob - old).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    surrogate = torch.where(advantage < 0, torch.maximum(surrogate, DUAL_CLIP * advantage), surrogate)
    kl = (ref - log_prob).exp() - (ref - log_prob) - 1
    return KL * kl - surrogate


def forward(model: torch.nn.Module, rows: list[Row]) -> list[torch.Tensor]:
    """[R] log-prob of each row's response tokens, float32. transformers finds positions by itself, from the token types."""
    device = model.device
    sequences = [torch.cat([row.prompt, row.response]) for row in rows]
    ids = pad_sequence(sequences, batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True).to(device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=torch.cat([row.pixels for row in rows]).to(device),
        image_grid_thw=torch.cat([row.grid for row in rows]).to(device),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        use_cache=False,
    ).logits
    found = []
    for row, scores in zip(rows, logits, strict=True):
        told = scores[len(row.prompt) - 1 : row.length - 1].float()
        found.append(-torch.nn.functional.cross_entropy(told, row.response.to(device), reduction="none"))
    return found


class Plain(Side):
    """The model, its optimizer, and the rows of `seed`."""

    def __init__(self, folder: str, size: str, seed: int, device: str, precision: str, attention: str, lr: float):
        super().__init__(device)
        self.size, self.rows, self.precision = SIZES[size], draw(SIZES[size], seed), precision
        self.model = Qwen2VLForConditionalGeneration.from_pretrained(
            Path(folder), dtype=torch.float32, attn_implementation=attention
        ).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, betas=(0.9, 0.999), weight_decay=0.01)

    def checkpointing(self, on: bool) -> None:
        if on:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()

    def compute_as(self, precision: str, attention: str) -> None:
        self.precision = precision
        self.model.set_attn_implementation(attention)

    def log_probs(self, count: int | None = None) -> list[np.ndarray]:
        """[R] of each row, or of the first `count`."""
        self.model.eval()
        with torch.no_grad(), self._autocast():
            found = [lp for part in self._parts(count) for lp in forward(self.model, self._rows(part))]
        return [log_prob.cpu().numpy() for log_prob in found]

    def update(self, old: list[np.ndarray], ref: list[np.ndarray], advantage: str) -> dict[str, float]:
        """One step of AdamW on all rows. `old`, `ref`: [R] of each row. Returns loss and gradient norm before clipping."""
        self.model.train()
        tokens, total = sum(len(row.response) for row in self.rows), 0.0
        for part in self._parts():
            with self._autocast():
                log_probs = forward(self.model, self._rows(part))
            loss = sum(
                self._row_loss(log_prob, old[i], ref[i], self.rows[i].advantage[advantage])
                for i, log_prob in zip(part, log_probs, strict=True)
            )
            (loss / tokens).backward()
            total += float(loss.detach()) / tokens
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": total, "gradient_norm": float(norm)}

    def parameters(self):
        return self.model.named_parameters()

    def _row_loss(self, log_prob: torch.Tensor, old: np.ndarray, ref: np.ndarray, advantage: float) -> torch.Tensor:
        device = log_prob.device
        given = torch.as_tensor(old, device=device), torch.as_tensor(ref, device=device)
        return token_loss(log_prob, given[0], given[1], torch.full_like(log_prob, advantage)).sum()

    def _parts(self, count: int | None = None) -> list[range]:
        step, rows = self.size.micro_batch, count or len(self.rows)
        return [range(i, min(i + step, rows)) for i in range(0, rows, step)]

    def _rows(self, part: range) -> list[Row]:
        return [self.rows[i] for i in part]

    def _autocast(self):
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16)
