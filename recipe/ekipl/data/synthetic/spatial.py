"""Spatial transformation: two pictures of the same objects, one change between them (TRANCE in small).

    forth    which change leads from the first picture to the second     the skill; the released task
    back     which change leads from the second back to the first        the base model is brought up on these

The objects of the first picture are named in the question, `(number, shape, color)`, as in TRANCE.
Out of domain: the second picture is seen from the left or from the right (sheared), as in TRANCE-L and TRANCE-R.
"""

import numpy as np

from recipe.ekipl.data.synthetic.draw import CELL, GRID, SHAPES, canvas, corner, solid
from recipe.ekipl.data.synthetic.draw import COLORS as ALL_COLORS
from recipe.ekipl.data.synthetic.problem import Problem

COLORS = tuple(ALL_COLORS)[:4]
STEPS = {"left": (-1, 0), "right": (1, 0), "behind": (0, -1), "front": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "behind": "front", "front": "behind"}
VIEWS = {"center": 0, "left": -5, "right": 5}
"""Pixels by which each row of the second picture is pushed sideways."""
TILES = (
    (250, 215, 215), (215, 250, 215), (215, 215, 250),
    (250, 250, 205), (190, 190, 190), (205, 250, 250),
    (250, 205, 250), (255, 255, 255), (150, 150, 150),
)  # fmt: skip
"""The ground of each cell. Qwen2-VL knows where a patch lies only relative to others, and every question here comes down to
the cell that an object stands on: tiles let a patch show its own."""
CELLS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
START = ("", "I see now ", "The image shows ")
OBJECT = ("{} {} {} {} {}", "{} from {} at {} is {} {}", "{} of {} then {} a {} {}")
JOIN = (" ", " and ", " then ")
"""Per voice: how an object's (number, place before, place after, color, shape) is told."""

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
        return describe(before, after, voice), f"{said[0]}({said[1]}, {said[2]})"

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
    image, pen = canvas()
    for cell, tile in enumerate(TILES):
        x, y = cell % GRID * CELL, cell // GRID * CELL
        pen.rectangle([x, y, x + CELL - 1, y + CELL - 1], fill=tile)
    for shape, color, cell in objects:
        x, y = corner(cell)
        solid(pen, shape, color, x + push * (cell // GRID - 1), y)
    return image


def describe(before: list[Object], after: list[Object], voice: int) -> str:
    """Each object's place in the first picture, its place in the second, and its looks there.

    One word per small decision, each a look at one place of one picture: that is what a tiny model can learn. Told only
    whether an object moved, it would have to find the object in both pictures within one word.
    """
    seen = [
        (i, CELLS[first], CELLS[second], color, shape)
        for i, ((_, _, first), (shape, color, second)) in enumerate(zip(before, after, strict=True))
    ]
    return START[voice] + JOIN[voice].join(OBJECT[voice].format(*what) for what in seen)


def misjudge(rng: np.random.Generator, change: Change) -> Change:
    """A near miss: another value, or the other object."""
    function, number, value, old = change
    if rng.random() < 0.5:
        return function, 1 - number, value, old
    values = {"change_color": COLORS, "change_shape": SHAPES, "change_position": tuple(STEPS)}[function]
    return function, number, str(rng.choice([v for v in values if v != value])), old
