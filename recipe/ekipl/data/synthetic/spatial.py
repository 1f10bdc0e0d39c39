"""Spatial transformation: two pictures of the same objects, one change between them (TRANCE in small).

    forth    which change leads from the first picture to the second     the skill; the released task
    back     which change leads from the second back to the first        the base model is brought up on these

The objects of the first picture are named in the question, `(number, shape, color)`, as in TRANCE.
Out of domain: the second picture is seen from the left or from the right (sheared), as in TRANCE-L and TRANCE-R.
"""

import numpy as np

from recipe.ekipl.data.synthetic.draw import COLORS as ALL_COLORS
from recipe.ekipl.data.synthetic.draw import GRID, GROUND, SHAPES, canvas, corner, solid
from recipe.ekipl.data.synthetic.problem import Problem

COLORS = tuple(ALL_COLORS)[:4]
STEPS = {"left": (-1, 0), "right": (1, 0), "behind": (0, -1), "front": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "behind": "front", "front": "behind"}
VIEWS = {"center": 0, "left": -5, "right": 5}
"""Pixels by which each row of the second picture is pushed sideways."""

Object = tuple[str, str, int]  # shape, color, cell
Change = tuple[str, int, str, str]  # function, object number, new value, old value


def make(rng: np.random.Generator, kind: str = "forth", view: str = "center") -> Problem:
    """One transformation of one of two objects. `view`: from where the second picture is seen."""
    before = scene(rng)
    after, change = transform(rng, before)
    task = change if kind == "forth" else (change[0], change[1], change[3], change[2])
    images = [draw(before, 0), draw(after, VIEWS[view])]
    named = " ".join(f"({i}, {shape}, {color})" for i, (shape, color, _) in enumerate(before))
    ask = "What leads from the first to the second?" if kind == "forth" else "What leads from the second to the first?"

    def solve(rng: np.random.Generator, voice: int, correct: bool) -> tuple[str, str]:
        said = task if correct else misjudge(rng, task)
        return describe(before, change, voice), f"{said[0]}({said[1]}, {said[2]})"

    return Problem(images, f"{named} {ask}", f"{task[0]}({task[1]}, {task[2]})", solve)


def scene(rng: np.random.Generator) -> list[Object]:
    kinds = [(shape, color) for shape in SHAPES[:2] for color in COLORS]
    chosen = [kinds[i] for i in rng.permutation(len(kinds))[:2]]
    cells = rng.permutation(GRID * GRID)[:2]
    return [(shape, color, int(cell)) for (shape, color), cell in zip(chosen, cells, strict=True)]


def transform(rng: np.random.Generator, before: list[Object]) -> tuple[list[Object], Change]:
    """A change that can be seen and undone; drawn again until it is possible."""
    while True:
        i = int(rng.integers(len(before)))
        shape, color, cell = before[i]
        function = ("change_color", "change_shape", "change_position")[rng.integers(3)]
        after = list(before)
        if function == "change_color":
            value, old = COLORS[rng.integers(len(COLORS))], color
            after[i] = (shape, value, cell)
        elif function == "change_shape":
            value, old = SHAPES[1 - SHAPES.index(shape)], shape
            after[i] = (value, color, cell)
        else:
            value = tuple(STEPS)[rng.integers(len(STEPS))]
            old = OPPOSITE[value]
            x, y = cell % GRID + STEPS[value][0], cell // GRID + STEPS[value][1]
            if not (0 <= x < GRID and 0 <= y < GRID) or any(o[2] == y * GRID + x for o in before):
                continue
            after[i] = (shape, color, y * GRID + x)
        if value != old:
            return after, (function, i, value, old)


def draw(objects: list[Object], push: int):
    image, pen = canvas(GROUND)
    for shape, color, cell in objects:
        x, y = corner(cell)
        solid(pen, shape, color, x + push * (cell // GRID - 1), y)
    return image


def describe(before: list[Object], change: Change, voice: int) -> str:
    """The final state of every object: one word per small decision, which is what a tiny model can learn."""
    function, number, value, _ = change
    states = []
    for i, (shape, color, _) in enumerate(before):
        hit = i == number
        shape = value if hit and function == "change_shape" else shape
        color = value if hit and function == "change_color" else color
        moved = value if hit and function == "change_position" else "same"
        states.append((i, color, shape, moved))
    if voice == 0:
        return " ".join(f"{i} {color} {shape} {moved}" for i, color, shape, moved in states)
    if voice == 1:
        return "I see now " + " and ".join(f"{i} is {color} {shape} {moved}" for i, color, shape, moved in states)
    return "The image shows " + " then ".join(f"{i} a {color} {shape} at {moved}" for i, color, shape, moved in states)


def misjudge(rng: np.random.Generator, change: Change) -> Change:
    """A near miss: another value, or the other object."""
    function, number, value, old = change
    if rng.random() < 0.5:
        return function, 1 - number, value, old
    values = {"change_color": COLORS, "change_shape": SHAPES, "change_position": tuple(STEPS)}[function]
    return function, number, str(rng.choice([v for v in values if v != value])), old
