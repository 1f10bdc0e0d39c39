"""Pictures on their way out: looked at by their header only, encoded once per question whoever is asked."""

import base64
import io
import warnings
from dataclasses import dataclass

from ekipl_rollout.errors import ExpertError, Failure

MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent."""

    mime: str
    width: int
    height: int
    base64: str
    """The original bytes; never re-encoded as another picture."""


def encode(memory: dict[bytes, Picture], picture: bytes, max_pixels: int) -> Picture:
    """`picture` ready to be sent, made once and kept in `memory` (`Question.encoded`). Raises ExpertError for what is
    no picture, and for one of more than `max_pixels`.

    A file of a few kilobytes can claim gigapixels. Its header is read and nothing is decoded.
    """
    encoded = memory.get(picture)
    if encoded is None:
        mime, width, height = look_at(picture)
        encoded = memory[picture] = Picture(mime, width, height, base64.b64encode(picture).decode("ascii"))
    if encoded.width * encoded.height > max_pixels:
        raise ExpertError(
            Failure.BAD_REQUEST,
            f"a picture of {encoded.width} x {encoded.height} pixels is more than max_pixels={max_pixels} allows",
        )
    return encoded


def look_at(picture: bytes) -> tuple[str, int, int]:
    """(MIME type, width, height) by the header. Raises ExpertError for anything but PNG, JPEG, WebP and GIF."""
    from PIL import Image

    try:
        with warnings.catch_warnings():  # Pillow warns at a size of its own; ours is max_pixels
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(picture), formats=tuple(MIME_TYPES)) as image:
                return MIME_TYPES[str(image.format)], *image.size
    except Image.DecompressionBombError:
        problem = "it claims more pixels than anybody would send: a decompression bomb"
    except Exception as error:  # Pillow raises a dozen types for broken files, SyntaxError among them
        problem = f"no readable PNG, JPEG, WebP or GIF ({type(error).__name__}), it begins with {picture[:8]!r}"
    raise ExpertError(Failure.BAD_REQUEST, f"a picture of {len(picture)} bytes cannot be sent: {problem}")
