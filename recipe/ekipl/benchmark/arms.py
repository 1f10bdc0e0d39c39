"""Arms of the benchmark and the order of their steps.

A block is one step of each arm on the same rows, in a random order; every block has rows of its own. Machine noise that
lasts longer than a block hits all arms alike, and ratios are taken within a block.
"""

import random
from dataclasses import dataclass
from typing import Any

STOCK = "stock"


@dataclass(frozen=True)
class Arm:
    """One way to make a step."""

    name: str
    experts: tuple[str, ...] = ()
    """Names of the experts that are asked; none for stock."""

    record: str = "refresh"
    """ekipl.record.mode: `refresh` asks every time and keeps the answers, `replay` never asks."""

    about: str = ""


ARMS = (
    Arm(STOCK, about="verl's own worker and sampler: GRPO with G answers of the policy"),
    Arm("fast", ("fast-a", "fast-b"), about="EKIPL, two live experts that answer before the rollout is done"),
    Arm("recorded", ("fast-a", "fast-b"), "replay", "EKIPL, the same answers from the record"),
    Arm("slow", ("slow-a", "slow-b"), about="EKIPL, two live experts that answer after the rollout is done"),
)


def make_schedule(blocks: int, seed: int) -> list[str]:
    """Arm of each step. `recorded` stands after `fast` in a block: it needs the answers to these rows."""
    rng, steps = random.Random(seed), []
    for _ in range(blocks):
        names = [arm.name for arm in ARMS]
        rng.shuffle(names)
        recorded, fast = names.index("recorded"), names.index("fast")
        if recorded < fast:
            names[recorded], names[fast] = names[fast], names[recorded]
        steps += names
    return steps


def expert_blocks(url: str) -> list[dict[str, Any]]:
    """`ekipl.experts` of all arms: two personas of one demo server (tiny/demo_experts.py)."""
    return [
        {
            "name": name,
            "kind": "openai",
            "model": name,
            "base_url": f"{url}/v1",
            "max_tokens": 64,
            "max_in_flight": 256,
            "instruction": None,
            "request_timeout_s": 600.0,
        }
        for name in dict.fromkeys(name for arm in ARMS for name in arm.experts)
    ]
