"""Shapes on small pictures. A picture of 84 x 84 pixels is 9 tokens for Qwen2-VL (patch 14, merge 2): one per cell of 28."""

from PIL import Image, ImageDraw

CELL, GRID = 28, 3
PIXELS = CELL * GRID
SIZE = CELL * 4 // 7

COLORS = {
    "red": (220, 40, 40),
    "blue": (50, 60, 230),
    "green": (30, 170, 50),
    "yellow": (240, 220, 40),
}
SHAPES = ("cube", "sphere", "cylinder")
DARK, LIGHT, GROUND, OTHER_GROUND = (20, 20, 20), (255, 255, 255), (190, 190, 190), (222, 214, 196)


def canvas(ground: tuple[int, int, int] = GROUND, grid: int = GRID) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """`grid` x `grid` cells."""
    image = Image.new("RGB", (CELL * grid, CELL * grid), ground)
    return image, ImageDraw.Draw(image)


def corner(cell: int, jitter: tuple[int, int] = (0, 0), grid: int = GRID) -> tuple[int, int]:
    """Top left pixel of an object in cell 0 (top left) ... grid^2 - 1 (bottom right)."""
    margin = (CELL - SIZE) // 2
    return (cell % grid) * CELL + margin + jitter[0], (cell // grid) * CELL + margin + jitter[1]


def solid(draw: ImageDraw.ImageDraw, shape: str, color: str, x: int, y: int, size: int = SIZE) -> None:
    """A cube has a dark edge, a sphere a highlight, a cylinder is a bar.

    Without edge and highlight a tiny model does not learn in minutes to tell a square from a disc.
    """
    fill = COLORS[color]
    if shape == "cube":
        draw.rectangle([x, y, x + size, y + size], fill=fill, outline=DARK, width=3)
    elif shape == "sphere":
        draw.ellipse([x, y, x + size, y + size], fill=fill)
        draw.ellipse([x + size * 0.3, y + size * 0.25, x + size * 0.6, y + size * 0.55], fill=LIGHT)
    else:
        quarter = size // 4
        draw.rectangle([x + quarter, y - 1, x + size - quarter, y + size + 1], fill=fill)
