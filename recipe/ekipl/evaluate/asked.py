"""What was asked, by content: an answer on disk counts only for the same question to the same model in the same way."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import ExpertSettings
from recipe.ekipl.evaluate.rows import EvalRow

VERSION = 1  # of the digest and of the answer lines; part of the digest
READ_BYTES = 1 << 22


def model_digest(folder: Path) -> str:
    """sha256 over names and contents of a model folder's files: the same model elsewhere is the same model."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    total = sum(path.stat().st_size for path in files)
    digest = hashlib.sha256()
    with tqdm(total=total, desc="reading model", unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for path in files:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with open(path, "rb") as file:
                while block := file.read(READ_BYTES):
                    digest.update(block)
                    bar.update(len(block))
    return digest.hexdigest()


def expert_identity(settings: ExpertSettings) -> dict[str, Any]:
    """What decides an expert's answers. Address, key and limits of traffic do not."""
    when_set = {"extra": settings.extra, "examples": [example.content for example in settings.examples]}
    always = {"kind": settings.kind, "model": settings.model, "instruction": settings.instruction}
    return {**always, **{name: value for name, value in when_set.items() if value}}


def row_digest(asked: Mapping[str, Any], row: EvalRow) -> str:
    """16 hex digits of everything that decides the answers to a row, the sample's index apart."""
    messages = [
        [turn.role, [hashlib.sha256(p).hexdigest() if isinstance(p, bytes) else f"text:{p}" for p in turn.parts]]
        for turn in row.question.messages
    ]
    everything = [VERSION, dict(asked), messages, [dict(limits) for limits in row.limits]]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def claim_folder(out: Path, asked: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    """Writes asked.json. Raises SettingsError when the folder holds answers to something else: nothing is overwritten."""
    path = out / "asked.json"
    if path.exists():
        before = json.loads(path.read_text())["asked"]
        changes = [
            f"{key} was {before.get(key)!r} and is now {asked.get(key)!r}"
            for key in sorted({*before, *asked})
            if before.get(key) != asked.get(key)
        ]
        if changes:
            raise SettingsError(
                f"--out {out} holds the answers of another evaluation: {'; '.join(changes)}. "
                "Choose another --out, or delete that folder if its answers are no longer wanted."
            )
    out.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps({"asked": dict(asked), "made_with": dict(made_with)}, indent=1, sort_keys=True) + "\n"
    )
    partial.replace(path)
