"""What the tests of the study share: a study on disk, and evaluations and runs that were made up so that the answer is known."""

import json
import sys
from pathlib import Path

import numpy as np

from recipe.ekipl.evaluate.judge import RowScores, write_scores
from recipe.ekipl.evaluate.result import write_result
from recipe.ekipl.reproduce.pieces import Study
from recipe.ekipl.reproduce.sizes import SIZES

ROWS = 40


def path_study(folder: Path) -> Study:
    """The smallest one, with two seeds."""
    return Study(folder, folder / "kept", SIZES["path"], (0, 1))


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def somewhere(folder: Path, kept: Path | None = None) -> Study:
    return Study(folder, kept or folder / "kept", SIZES["path"], (0,))


# Accuracy of what is made up. Vision-EKIPL is best out of domain; Reason-RFT has fewer ways to be right than the base.
MADE_UP = {
    "zero_shot": 0.3,
    "ans_sft": 0.4,
    "cot_sft": 0.4,
    "grpo": 0.6,
    "reason_rft": 0.6,
    "ekipl": 0.95,
    "sft_ekipl": 0.9,
}


def evaluation(folder: Path, splits, accuracy: float, samples: int = 1, solvable: float = 1.0, seed: int = 0):
    """Scores of an evaluation: of the `solvable` rows, each sample is right with probability accuracy / solvable."""
    rng = np.random.default_rng([seed, samples, int(100 * accuracy)])
    summaries = {}
    for split in splits:
        rows = []
        for k in range(ROWS):
            right = rng.random(samples) < (accuracy / solvable if k < solvable * ROWS else 0.0)
            rows.append(RowScores(f"{split}-{k}", split, "1", [float(r) for r in right], [1.0] * samples))
        (folder / split).mkdir(parents=True, exist_ok=True)
        write_scores(folder / split / "scores.paper.jsonl", rows)
        mean = float(np.mean([row.mean for row in rows]))
        whole = {"mean": mean, "low": mean, "high": mean}
        curve = {str(k): whole for k in range(1, samples + 1) if samples > 1}
        summaries[split] = {"rows": ROWS, "samples": samples, "accuracy": whole, "pass_at_k": curve}
    head = {"name": folder.name, "method": folder.parents[1].name, "step": None, "samples_seen": None, "sampling": {}}
    write_result(folder / "result.paper.json", {**head, "rules": "paper"}, summaries)


def run_folder(folder: Path, seed: int):
    """A run whose experts' share falls from .8 to .2."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": step, "ekipl/groups/count": 4, "ekipl/groups/silent": 0.5, "ekipl/expert_share": share}
        | {"ekipl/policy/share": 1 - share, "ekipl/expert1/share": share, "ekipl/expert2/share": 0.0}
        for step, share in enumerate(np.linspace(0.8, 0.2, 12) + 0.01 * seed, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "plan.json").write_text('{"batch": 4}')
    (folder / "config.yaml").write_text("ekipl: {experts: [{name: demo-a}, {name: demo-b}]}")
