"""Structure perception: small geometry figures with numeric and A-D answers.

    points    how many points lie on a circle              number
    sides     how many sides a polygon has                 number, or a choice A-D
    angle     the angle between two lines                  number (degrees)

The base model is brought up on plain numeric questions; the skill is choosing the letter (`kind="choose"`).
Out of domain, in words that are known: points on a double, filled ring; hollow polygons of five to seven sides; the angle of a
triangle, marked by an arc; all turned freely and in other colours.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from recipe.ekipl.data.synthetic.draw import PIXELS, canvas
from recipe.ekipl.data.synthetic.problem import Problem

PAPER, FAR_PAPER, INK, FAR_INK = (250, 250, 250), (232, 240, 250), (0, 0, 0), (40, 70, 110)
ANGLES = (30, 60, 90, 120, 150)
LETTERS = "ABCD"
OFF, TURN = 3, 0.1
"""Pixels off the middle and radians, so that a test row's picture is seldom one of a training row."""


def make(rng: np.random.Generator, kind: str = "choose", far: bool = False) -> Problem:
    """One structure problem. `kind`: "number" (plain question) or "choose" (letters, and numbers one time in four)."""
    figure = ("points", "sides", "angle")[rng.integers(3)]
    image, draw = canvas(FAR_PAPER if far else PAPER)
    drawn = FIGURES[figure](rng, draw, far)
    return numeric(image, *drawn) if kind == "number" or rng.random() < 0.25 else choice(rng, image, *drawn)


Figure = tuple[int, list[int], str, tuple[str, str, str]]
"""(right answer, possible answers, question, how each voice says an answer) of a figure that is drawn in passing"""


def middle(rng: np.random.Generator) -> tuple[float, float]:
    right, down = rng.integers(-OFF, OFF + 1, 2)
    return PIXELS / 2 + right, PIXELS / 2 + down


def points(rng: np.random.Generator, draw: ImageDraw.ImageDraw, far: bool) -> Figure:
    """1 to 6 points on a circle."""
    (cx, cy), radius = middle(rng), PIXELS * 0.34
    count = int(rng.integers(1, 7))
    box = [cx - radius, cy - radius, cx + radius, cy + radius]
    draw.ellipse(box, outline=FAR_INK if far else INK, width=2, fill=(205, 220, 235) if far else None)
    if far:
        draw.ellipse(
            [edge + sign * PIXELS / 8 for edge, sign in zip(box, (1, 1, -1, -1), strict=True)], outline=FAR_INK
        )
    turn = rng.uniform(0, math.pi) if far else rng.uniform(-TURN, TURN)
    for k in rng.permutation(8)[:count]:
        x, y = cx + radius * math.cos(k * math.pi / 4 + turn), cy + radius * math.sin(k * math.pi / 4 + turn)
        draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=(200, 30, 30))
    voices = ("the circle has {} points", "Counting around the circle I find {} points", "There are {} points on it")
    return count, list(range(1, 7)), "How many points are on the circle?", voices


def sides(rng: np.random.Generator, draw: ImageDraw.ImageDraw, far: bool) -> Figure:
    """A polygon of 3 to 6 sides, far 5 to 7."""
    (cx, cy), radius = middle(rng), PIXELS * 0.38
    count = int(rng.integers(5, 8)) if far else int(rng.integers(3, 7))
    turn = rng.uniform(0, 2 * math.pi) if far else -math.pi / 2 + rng.uniform(-TURN, TURN)
    corners = [
        (
            cx + radius * math.cos(turn + 2 * math.pi * k / count),
            cy + radius * math.sin(turn + 2 * math.pi * k / count),
        )
        for k in range(count)
    ]
    if far:
        draw.polygon(corners, outline=FAR_INK, width=3)
    else:
        draw.polygon(corners, fill=(60, 90, 220))
    voices = ("the polygon has {} sides", "I see {} sides", "Its corners number {}")
    return count, [3, 4, 5, 6, 7] if far else [3, 4, 5, 6], "How many sides has the polygon?", voices


def angle(rng: np.random.Generator, draw: ImageDraw.ImageDraw, far: bool) -> Figure:
    """Two lines from one point, far with the third side of the triangle."""
    degrees = int(rng.choice(ANGLES))
    start = rng.uniform(0, 2 * math.pi) if far else -math.radians(degrees) + rng.uniform(-TURN, TURN)
    (cx, cy), length = middle(rng), PIXELS * 0.4
    turns = (start, start + math.radians(degrees))
    ends = [(cx + length * math.cos(turn), cy + length * math.sin(turn)) for turn in turns]
    for end in ends:
        draw.line([(cx, cy), end], fill=FAR_INK if far else INK, width=6)
    if far:
        draw.line(ends, fill=FAR_INK, width=2)
        box = [cx - length / 3, cy - length / 3, cx + length / 3, cy + length / 3]
        draw.arc(box, math.degrees(turns[0]), math.degrees(turns[1]), fill=FAR_INK, width=2)
    voices = ("the angle is {}", "The opening between the lines measures {} degrees", "It looks like {} to me")
    return degrees, list(ANGLES), "What is the angle between the two lines?", voices


FIGURES = {"points": points, "sides": sides, "angle": angle}


def numeric(image: Image.Image, value: int, values: list[int], ask: str, voices: tuple[str, str, str]) -> Problem:
    """The number itself is asked for."""

    def solve(rng: np.random.Generator, voice: int, correct: bool) -> tuple[str, str]:
        said = value if correct else int(rng.choice([v for v in values if v != value]))
        return voices[voice].format(said), str(said)

    return Problem([image], ask, str(value), solve)


def choice(
    rng: np.random.Generator, image: Image.Image, value: int, values: list[int], ask: str, voices: tuple[str, str, str]
) -> Problem:
    """Four numbers are offered, and a letter is asked for."""
    others = [v for v in values if v != value]
    offered = [value, *(int(v) for v in rng.permutation(others)[:3])]
    offered = [offered[i] for i in rng.permutation(4)]
    options = " ".join(f"{letter} {v}" for letter, v in zip(LETTERS, offered, strict=True))

    def solve(rng: np.random.Generator, voice: int, correct: bool) -> tuple[str, str]:
        said = value if correct else int(rng.choice([v for v in offered if v != value]))
        letter = LETTERS[offered.index(said)]
        endings = ("option {}", "so the choice is {}", "That matches {}")
        return f"{voices[voice].format(said)} {endings[voice].format(letter)}", letter

    return Problem([image], f"{ask} {options}", LETTERS[offered.index(value)], solve)
