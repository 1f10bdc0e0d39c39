"""A picture's name -> its bytes, or the reason why it cannot be used."""

import io
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from recipe.ekipl.data.refusal import RowRefused
from recipe.ekipl.data.row import Picture

MOST_BYTES, MOST_PIXELS = 64_000_000, 64_000_000  # a larger picture is a mistake or an attack
MOST_STRETCHED = 200  # Qwen2-VL's processor refuses a longer side of more than so many times the shorter


def load_picture(name: Any, root: Path, folders: tuple[str, ...]) -> Picture:
    """`name`: a file name, or `{"path": name}` as in Reason-RFT's loader. `root` must be resolved.

    Raises RowRefused.
    """
    name = name.get("path") if isinstance(name, dict) else name
    if not isinstance(name, str) or not name:
        raise RowRefused("picture", f"`image` holds {name!r} instead of a file name")
    path = _find(name, root, folders)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise RowRefused("picture size", f"picture {name!r} has {size} bytes, more than {MOST_BYTES}")
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                _check_size(name, image.width, image.height)
                image.load()
    except RowRefused:
        raise
    except Exception as error:  # Pillow raises many kinds on broken files; all mean the same here
        raise RowRefused("picture undecodable", f"picture {name!r} cannot be decoded: {error}") from None
    return Picture(path, content)


def _find(name: str, root: Path, folders: tuple[str, ...]) -> Path:
    try:
        found = next((path for folder in folders if (path := root / folder / name).is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        found = None
    if found is None:
        raise RowRefused(
            "picture missing", f"picture {name!r:.120} is in none of {', '.join(folders)} below the data folder"
        )
    found = found.resolve()
    if root not in found.parents:
        raise RowRefused("picture outside", f"picture {name!r} points outside the data folder")
    return found


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise RowRefused("picture size", f"picture {name!r} has {width} x {height} pixels, more than {MOST_PIXELS}")
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise RowRefused(
            "picture size", f"picture {name!r} is {width} x {height}: too stretched for Qwen2-VL's processor"
        )
