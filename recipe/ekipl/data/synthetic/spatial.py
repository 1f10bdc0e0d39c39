"""Spatial transformation: two pictures of the same objects, one change between them (TRANCE in small).

    forth    which change leads from the first picture to the second     the skill; the released task
    back     which change leads from the second back to the first        the base model is brought up on these

The objects of the first picture are named and numbered in the question, as in TRANCE.
Out of domain: the second picture is seen from the left or from the right (sheared), as in TRANCE-L and TRANCE-R.
"""

import numpy as np

from recipe.ekipl.data.synthetic.draw import CELL, COLORS, SHAPES, canvas, corner, solid
from recipe.ekipl.data.synthetic.problem import Problem

GRID = 2
"""Four places. With nine, of which seven are empty, a tiny model did not learn to see in 1200 steps where something stands."""
HUES = tuple(COLORS)
STEPS = {"left": (-1, 0), "right": (1, 0), "behind": (0, -1), "front": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "behind": "front", "front": "behind"}
JITTER = 2
"""Pixels by which an object stands off its place, differently in each picture: few problems differ in words, so that without
it the pictures of a test row could be those of a training row."""
VIEWS = {"center": 0, "left": -4, "right": 4}
"""Pixels by which each row of the second picture is pushed sideways."""
TILES = ((250, 215, 215), (215, 250, 215), (215, 215, 250), (250, 250, 205))
"""The ground of each place. Qwen2-VL knows where a patch lies only relative to others: tiles let a patch show its own."""
PLACES = ("one", "two", "three", "four")
START = ("", "I see now ", "The image shows ")
NOTHING = ("empty", "nothing", "free")
MARKS = (("same", "other", "gone", "came"), ("stays", "changed", "went", "arrived"), ("equal", "new", "lost", "found"))
"""Per voice: the words for a place without an object, and for what became of a place."""
JOIN = (" ", " and ", " then ")

Object = tuple[str, str, int]  # shape, color, place
Change = tuple[str, int, str, str]  # function, object number, new value, old value


def make(rng: np.random.Generator, kind: str = "forth", view: str = "center") -> Problem:
    """One transformation of one of two objects. `view`: from where the second picture is seen."""
    before = scene(rng)
    after, change = transform(rng, before)
    task = change if kind == "forth" else (change[0], change[1], change[3], change[2])
    images = [draw(rng, before, 0), draw(rng, after, VIEWS[view])]
    # the number behind its object, as the reasoning has it: a text to be gone on with, which is what a tiny model learns
    named = ", ".join(f"{shape} {color} {i}" for i, (shape, color, _) in enumerate(before))
    ask = "What leads from the first to the second?" if kind == "forth" else "What leads from the second to the first?"

    def solve(rng: np.random.Generator, voice: int, correct: bool) -> tuple[str, str]:
        said = task if correct else misjudge(rng, task)
        return describe(before, after, voice), f"{said[0]}({said[1]}, {said[2]})"

    return Problem(images, f"Objects: {named}. {ask}", f"{task[0]}({task[1]}, {task[2]})", solve)


def scene(rng: np.random.Generator) -> list[Object]:
    """Two objects of different colors, numbered in the order of their places: which of them changed is then seen, and not
    looked up in the question, which a tiny model does not learn beside all the rest."""
    colors = rng.permutation(len(HUES))[:2]
    places = sorted(rng.permutation(GRID * GRID)[:2])
    return [(SHAPES[rng.integers(2)], HUES[color], int(place)) for color, place in zip(colors, places, strict=True)]


def transform(rng: np.random.Generator, before: list[Object]) -> tuple[list[Object], Change]:
    """A change that can be seen and undone."""
    i = int(rng.integers(len(before)))
    shape, color, place = before[i]
    function = ("change_color", "change_shape", "change_position")[rng.integers(3)]
    after = list(before)
    if function == "change_color":
        value, old = str(rng.choice([hue for hue in HUES if hue != color])), color
        after[i] = (shape, value, place)
    elif function == "change_shape":
        value, old = SHAPES[1 - SHAPES.index(shape)], shape
        after[i] = (value, color, place)
    else:
        ways = steps_from(place, {other for _, _, other in before})
        value = str(rng.choice(list(ways)))
        old = OPPOSITE[value]
        after[i] = (shape, color, ways[value])
    return after, (function, i, value, old)


def steps_from(place: int, taken: set[int]) -> dict[str, int]:
    """Direction -> free place that it leads to. With two objects on four places there is one."""
    found = {}
    for way, (right, front) in STEPS.items():
        x, y = place % GRID + right, place // GRID + front
        if 0 <= x < GRID and 0 <= y < GRID and y * GRID + x not in taken:
            found[way] = y * GRID + x
    return found


def draw(rng: np.random.Generator, objects: list[Object], push: int):
    image, pen = canvas(grid=GRID)
    for place, tile in enumerate(TILES):
        x, y = place % GRID * CELL, place // GRID * CELL
        pen.rectangle([x, y, x + CELL - 1, y + CELL - 1], fill=tile)
    for shape, color, place in objects:
        right, down = rng.integers(-JITTER, JITTER + 1, 2)
        x, y = corner(place, (int(right), int(down)), GRID)
        solid(pen, shape, color, x + push * (2 * (place // GRID) - 1), y)
    return image


def describe(before: list[Object], after: list[Object], voice: int) -> str:
    """Place by place: what is there in the first picture, with its number, what is there in the second, what became of it
    and, if it changed, its number again.

    Each word is one look, at one place of one picture, at the question or at the words before: that is what a tiny model
    can learn. Told object by object, it would have to find the object in both pictures within one word; told its number
    only once it changed, it calls everything 0.
    """
    first, second = ({place: f"{shape} {color}" for shape, color, place in objects} for objects in (before, after))
    numbers = {place: f" {i}" for i, (_, _, place) in enumerate(before)}
    said = []
    for place, name in enumerate(PLACES):
        was, now = (there.get(place, NOTHING[voice]) for there in (first, second))
        mark = 0 if was == now else 2 if place not in second else 3 if place not in first else 1
        number = numbers.get(place, "")
        said.append(f"{name} {was}{number} {now} {MARKS[voice][mark]}{number if mark else ''}")
    return START[voice] + JOIN[voice].join(said)


def misjudge(rng: np.random.Generator, change: Change) -> Change:
    """A near miss: another value, or the other object."""
    function, number, value, old = change
    if rng.random() < 0.5:
        return function, 1 - number, value, old
    values = {"change_color": HUES, "change_shape": SHAPES, "change_position": tuple(STEPS)}[function]
    return function, number, str(rng.choice([v for v in values if v != value])), old
