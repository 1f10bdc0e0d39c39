"""What one synthetic problem is: pictures, a question, its answer, and reasoning in several voices."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

VOICES = 3
"""Phrasings of the same reasoning: 0 is the policy's own, 1 and 2 belong to the two demo experts."""

Solve = Callable[[np.random.Generator, int, bool], tuple[str, str]]
"""(random numbers, voice, correct) -> (reasoning, answer). An incorrect one is a near miss, as a model's would be."""


@dataclass(frozen=True)
class Problem:
    """One row of the world before it is written to disk."""

    images: list[Image.Image]
    """One picture, or two (initial state first) for spatial transformation."""

    question: str
    answer: str
    """Ground truth, as Reason-RFT writes it: "3", "B", or calls separated by newlines."""

    solve: Solve
    """Reasoning and answer of anybody who looks at the picture."""

    def chain_of_thought(self, voice: int = 0) -> str:
        """Correct reasoning. Shape of the `cot` field of the released train files."""
        return self.solve(np.random.default_rng(0), voice, True)[0]


def response(reasoning: str, answer: str) -> str:
    """The two blocks that the format reward asks for."""
    return f"<think> {reasoning} </think><answer> {answer} </answer>"
