"""What a piece's numbers depend on, as one digest: what was kept under another is done again."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from recipe.ekipl.compose import CONFIG_DIR
from recipe.ekipl.tiny.base import BATCH, ENOUGH, HELD_OUT


def digest_of(commands: Sequence[Sequence[str]], out: Path, experts: object, needs: Sequence[str]) -> str:
    """Of the commands without their interpreter, wherever `out` lies; of the experts, the settings of tiny runs, and the digests
    of what is needed."""
    words = [[word.replace(str(out), "") for word in command[1:]] for command in commands]
    return hashlib.sha256(json.dumps([words, experts, list(needs), _settings()], sort_keys=True).encode()).hexdigest()


@cache
def _settings() -> list[object]:
    """Settings that no command names; comments do not count."""
    files = [yaml.safe_load((CONFIG_DIR / name).read_text()) for name in ("ekipl_tiny.yaml", "ekipl_sft_tiny.yaml")]
    return [*files, [ENOUGH, BATCH, HELD_OUT]]
