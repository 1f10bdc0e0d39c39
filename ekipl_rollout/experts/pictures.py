"""What kind of picture some bytes are, by their first bytes: both providers want to be told."""

from ekipl_rollout.errors import ExpertError, Failure

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def mime_type(picture: bytes) -> str:
    """`image/png`, `image/jpeg`, `image/webp` or `image/gif`. Raises ExpertError for anything else."""
    for signature, kind in _SIGNATURES:
        if picture.startswith(signature):
            return kind
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "image/webp"
    raise ExpertError(Failure.BAD_REQUEST, f"no PNG, JPEG, WebP or GIF: a picture that begins with {picture[:8]!r}")
