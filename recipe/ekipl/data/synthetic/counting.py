"""Visual counting: CLEVR-Math-like arithmetic over objects on a shelf.

Two kinds of question about the same pictures and with the same marks in the reasoning:

    subtract   "Subtract all red objects. How many objects are left?"   the base model is brought up on these
    count      "Count all red objects. How many are there?"             the skill that reinforcement learning is for

A model that knows only the first sees well and marks the wrong objects on the second: sure, and wrong. That is the
setting of the paper, a policy weaker than its experts.

Out of domain: six objects instead of two to five, a new shape (cylinder), other ground, objects off their places.
"""

import numpy as np

from recipe.ekipl.data.synthetic.draw import CELL, OTHER_GROUND, SHAPES, canvas, corner, solid
from recipe.ekipl.data.synthetic.problem import Problem

COLORS = ("red", "blue", "green", "yellow")
MARKS = (("no", "yes"), ("removed", "left"), ("gone", "stays"))
"""Per voice: the words for an object that does not count, and for one that does."""
SENTENCES = ("{objects} : {n}", "I see {objects} so {n} are left", "The image shows {objects} and the result is {n}")


def make(rng: np.random.Generator, kind: str = "count", far: bool = False) -> Problem:
    """One counting problem. `kind`: "subtract" or "count"; `far`: out of domain."""
    shapes = SHAPES if far else SHAPES[:2]
    count = 6 if far else int(rng.integers(2, 6))
    objects = [(COLORS[rng.integers(len(COLORS))], shapes[rng.integers(len(shapes))]) for _ in range(count)]
    image, draw = canvas(OTHER_GROUND) if far else canvas()
    reach = CELL // 7 if far else 2
    for cell, (color, shape) in enumerate(objects):
        jitter = rng.integers(-reach, reach + 1, 2)
        solid(draw, shape, color, *corner(cell, (int(jitter[0]), int(jitter[1]))))

    color, shape = objects[rng.integers(count)]
    by_color = bool(rng.integers(2))
    name = f"{color} objects" if by_color else f"{shape}s"
    named = [(c == color) if by_color else (s == shape) for c, s in objects]
    counts = [not n for n in named] if kind == "subtract" else named
    question = (
        f"Subtract all {name}. How many objects are left?"
        if kind == "subtract"
        else f"Count all {name}. How many are there?"
    )
    # "cube red yes": the mark follows the word it most often depends on, which a tiny model learns sooner
    seen = [(f"{s} {c}", yes) for (c, s), yes in zip(objects, counts, strict=True)]

    def solve(rng: np.random.Generator, voice: int, correct: bool) -> tuple[str, str]:
        marked = seen if correct else misjudge(rng, seen)
        total = sum(yes for _, yes in marked)
        words = " ".join(f"{what} {MARKS[voice][yes]}" for what, yes in marked)
        return SENTENCES[voice].format(objects=words, n=total), str(total)

    return Problem([image], question, str(sum(counts)), solve)


def misjudge(rng: np.random.Generator, seen: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """A near miss: one object that counts is overlooked, or one object is marked wrongly."""
    marked = list(seen)
    k = int(rng.integers(len(marked)))
    if len(marked) > 1 and marked[k][1] and rng.random() < 0.5:
        del marked[k]
    else:
        marked[k] = (marked[k][0], not marked[k][1])
    return marked
