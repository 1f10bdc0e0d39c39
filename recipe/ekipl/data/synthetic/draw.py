"""Shapes on small pictures. A picture of 84 x 84 pixels is 9 tokens for Qwen2-VL (patch 14, merge 2): one per cell."""

from PIL import Image, ImageDraw

PIXELS, GRID = 84, 3
CELL = PIXELS // GRID
SIZE = CELL * 4 // 7

COLORS = {
    "red": (220, 40, 40),
    "blue": (50, 60, 230),
    "green": (30, 170, 50),
    "yellow": (240, 220, 40),
    "purple": (150, 50, 190),
    "cyan": (40, 210, 220),
}
SHAPES = ("cube", "sphere", "cylinder")
DARK, LIGHT, GROUND, OTHER_GROUND = (20, 20, 20), (255, 255, 255), (190, 190, 190), (222, 214, 196)


def canvas(ground: tuple[int, int, int] = GROUND) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (PIXELS, PIXELS), ground)
    return image, ImageDraw.Draw(image)


def corner(cell: int, jitter: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Top left pixel of an object in cell 0 (top left) ... 8 (bottom right)."""
    margin = (CELL - SIZE) // 2
    return (cell % GRID) * CELL + margin + jitter[0], (cell // GRID) * CELL + margin + jitter[1]


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
