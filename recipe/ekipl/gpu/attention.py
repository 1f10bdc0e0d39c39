"""Check 1: the same log-probs from every attention implementation, in both precisions, on CPU and GPU.

All are held against eager attention in float32 on the CPU, the plainest there is, on a few rows.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np

from recipe.ekipl.gpu.findings import Finding
from recipe.ekipl.gpu.plain import Plain
from recipe.ekipl.gpu.side import Remote

ROWS = 4
FP32, BF16_MEAN = 1e-3, 3e-2
"""Nats. float32 differs by the order of sums; bfloat16 keeps 8 bits, and log-probs of a random model are about -ln V."""


def implementations(device: str) -> list[str]:
    packed = device != "cpu" and find_spec("flash_attn") is not None
    return ["eager", "sdpa", *(["flash_attention_2"] if packed else [])]


def check(folder: str, size: str, seed: int, device: str) -> Iterator[Finding]:
    arguments = (folder, size, seed)
    with Remote(Plain, *arguments, "cpu", "fp32", "eager", 0.0) as cpu:
        reference = cpu.log_probs(ROWS)
        if device == "cpu":
            yield from _compare(cpu, reference, device)
    if device != "cpu":
        with Remote(Plain, *arguments, device, "fp32", "eager", 0.0) as gpu:
            yield from _compare(gpu, reference, device)


def _compare(side: Remote, reference: list[np.ndarray], device: str) -> Iterator[Finding]:
    expected = np.concatenate(reference)
    for precision in ("fp32", "bf16"):
        for attention in implementations(device):
            if attention == "flash_attention_2" and precision == "fp32":
                continue  # it has no float32
            side.compute_as(precision, attention)
            off = np.abs(np.concatenate(side.log_probs(ROWS)) - expected)
            name = f"{attention}, {precision}, {device} - eager, fp32, cpu"
            fp32 = precision == "fp32"
            yield Finding("attention", f"max  |log-prob: {name}|", float(off.max()), FP32 if fp32 else None)
            yield Finding("attention", f"mean |log-prob: {name}|", float(off.mean()), FP32 if fp32 else BF16_MEAN)
