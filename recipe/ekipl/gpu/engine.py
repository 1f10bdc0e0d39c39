"""Check 2: verl's FSDP2 actor computes the log-probs and takes the step that plain PyTorch does.

Old and reference log-probs are the model's own with noise, so that clipping and the KL term both act. Two steps are
taken, one with each baseline of `ekipl.advantage`.
"""

from collections.abc import Iterator

import numpy as np

from recipe.ekipl.gpu.findings import Finding
from recipe.ekipl.gpu.on_verl import OnVerl
from recipe.ekipl.gpu.plain import Plain
from recipe.ekipl.gpu.side import Remote

NOISE = 0.2  # nats, as large as the clip range
LEARNING_RATE = 1e-5
BOUNDS: dict[str, dict[str, float | None]] = {
    # float32: the order of sums. The step is Adam's first, g / |g|, which makes much of gradients near zero.
    "fp32": {"log-prob (mean)": 1e-4, "loss": 1e-4, "gradient norm (relative)": 1e-3, "step (relative)": 2e-2},
    # bfloat16: FSDP2 casts weights once, autocast casts at each product. Signs of small gradients differ: no bound there.
    "bf16": {"log-prob (mean)": 3e-2, "loss": 3e-2, "gradient norm (relative)": 1e-1, "step (relative)": None},
}


def noisy(log_probs: list[np.ndarray], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(x + rng.normal(0, NOISE, len(x))).astype(np.float32) for x in log_probs]


def check(folder: str, size: str, seed: int, device: str, attention: str) -> Iterator[Finding]:
    for precision, bounds in BOUNDS.items():
        arguments = (folder, size, seed, device, precision, attention, LEARNING_RATE)
        with Remote(Plain, *arguments) as plain, Remote(OnVerl, *arguments) as verl:
            for what, value in _differences(plain, verl, seed):
                key = next(key for key in bounds if what.startswith(key))
                yield Finding("engine", f"|{what}: verl - plain|, {precision}, {attention}", value, bounds[key])


def _differences(plain: Remote, verl: Remote, seed: int) -> Iterator[tuple[str, float]]:
    ours, theirs = plain.log_probs(), verl.log_probs()
    yield "log-prob (mean)", float(np.abs(np.concatenate(ours) - np.concatenate(theirs)).mean())
    old, ref = noisy(ours, seed), noisy(ours, seed + 1)
    for advantage in ("selected", "all"):
        before = _joined(plain.sample()), _joined(verl.sample())
        expected, found = (side.update(old, ref, advantage) for side in (plain, verl))
        steps = [_joined(side.sample()) - start for side, start in zip((plain, verl), before, strict=True)]
        norm = expected["gradient_norm"]
        yield f"loss, {advantage}", abs(found["loss"] - expected["loss"])
        yield f"gradient norm (relative), {advantage}", abs(found["gradient_norm"] - norm) / norm
        yield f"step (relative), {advantage}", float(np.linalg.norm(steps[1] - steps[0]) / np.linalg.norm(steps[0]))


def _joined(sample: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([sample[name] for name in sorted(sample)]).astype(np.float64)
