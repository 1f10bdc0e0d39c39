"""What is kept of a finished piece: files small enough to commit, from which the page is written on any machine.

    <kept>/<piece>/done.json                              seconds, what was done, from which base model
                   metrics.jsonl, plan.json, config.yaml  of a run: what figures and claims read, a line a step
                   evaluations/<name>/result.paper.json   and the scores of its rows, compressed

Models, answers and logs stay where they were made. A piece that is kept is not done again, whoever made it; its model is made
again where a piece that is missing needs it.
"""

import gzip
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from recipe.ekipl.measure.runs import read_run

METRICS = re.compile(r"step|ekipl/(dollars|expert_share|groups/\w+|\w+/share|update/skipped)")
MARK = "done.json"


def keep(made: Path, kept: Path, done: Mapping[str, Any]) -> None:
    """Copies what is kept of the piece in `made` to `kept`, all at once, with `done` as its mark.

    A kill leaves what was there or what comes, or neither, and then the piece is done again; never a mixture.
    """
    partial, old = (kept.with_name(f"{kept.name}.{ending}") for ending in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    if (made / "metrics.jsonl").exists():
        _keep_run(made, partial)
    for result in made.glob("evaluations/*/result.paper.json"):
        _keep_evaluation(result.parent, partial / "evaluations" / result.parent.name)
    (partial / MARK).write_text(json.dumps(done) + "\n")
    if kept.exists():
        kept.rename(old)
    partial.rename(kept)
    shutil.rmtree(old, ignore_errors=True)


def mark_of(kept: Path) -> dict[str, Any] | None:
    """The mark of a kept piece; None where there is none that can be read."""
    try:
        return json.loads((kept / MARK).read_text())
    except (OSError, ValueError):
        return None


def _keep_run(made: Path, kept: Path) -> None:
    run = read_run(None, made)
    rows = [{name: _short(value) for name, value in row.items() if METRICS.fullmatch(name)} for row in run.steps]
    (kept / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (kept / "plan.json").write_text(json.dumps({"batch": run.batch}) + "\n")
    (kept / "config.yaml").write_text(yaml.safe_dump({"ekipl": {"experts": [{"name": name} for name in run.experts]}}))


def _short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def _keep_evaluation(made: Path, kept: Path) -> None:
    kept.mkdir(parents=True)
    shutil.copy(made / "result.paper.json", kept)
    for scores in made.glob("*/scores.paper.jsonl"):
        target = kept / scores.parent.name / f"{scores.name}.gz"
        target.parent.mkdir()
        target.write_bytes(gzip.compress(scores.read_bytes(), mtime=0))  # the same scores, the same bytes
