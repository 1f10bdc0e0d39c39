"""docs/results.md and what it shows, made from finished pieces. The same pieces give the same files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipe.ekipl.measure import figures, table_1
from recipe.ekipl.reproduce.claims import Answer, answer, claims_of
from recipe.ekipl.reproduce.kept import mark_of
from recipe.ekipl.reproduce.measured import Measured
from recipe.ekipl.reproduce.perform import is_kept
from recipe.ekipl.reproduce.pieces import Piece, Study
from recipe.ekipl.reproduce.sizes import REGIMES

STANDING = {
    "ekipl": "mean and standard deviation over the kept answers: the paper's rule",
    "ekipl_all": "mean and standard deviation over all candidates: not the paper's",
}
"""Who stands for Vision-EKIPL when a claim is judged."""

HEAD = """# Results of the study in miniature

Written by `bash scripts/reproduce_tiny.sh` from finished runs; not edited by hand. A Qwen2-VL of 1.6M parameters on the
synthetic world, trained by the same code as a large one. It says how the methods behave here, not what the paper measured.

{size}

A seed is that of the base model and of training: seeds see the same rows in another order and are tested on the same rows. A
claim *held* when the 95 % interval of every difference it is about lies above zero, *did not hold* when one lies below, and
is *undecided here* otherwise. Two methods are compared row by row and seed by seed, on the seeds that both have; how many
these are, at least, stands beside the verdict. Intervals resample rows and seeds; with few seeds the seeds' part is too
small, and with one there is none.
Dollars are what the demo experts' tokens would cost at the list prices of GPT-4o and Gemini 2.5 Pro.
"""


def write_page(study: Study, pieces: Sequence[Piece], docs: Path) -> Path:
    """Writes `<docs>/results.md` and `<docs>/results/` from what is kept; returns the page."""
    folder, done = docs / "results", {}
    for piece in pieces:
        if is_kept(study, piece) and (mark := mark_of(study.kept / piece.name)):
            done[piece.name] = mark
    folder.mkdir(parents=True, exist_ok=True)
    parts = [HEAD.format(size=_size(study))]
    found: dict[str, dict[str, list[dict]]] = {}
    for regime in REGIMES.values():
        measured = Measured(study, regime, frozenset(done))
        if measured.variants():
            part, found[regime.name] = _regime(measured, folder / regime.name)
            parts.append(part)
    parts.append(_pieces(pieces, done))
    (folder / "claims.json").write_text(json.dumps(found, indent=1) + "\n")
    page = docs / "results.md"
    page.write_text("\n".join(parts))
    return page


def _size(study: Study) -> str:
    size, seeds = study.size, ", ".join(map(str, study.seeds))
    steps = ", ".join(f"{count} in `{name}`" for name, count in size.steps.items())
    return (
        f"Seeds {seeds}. Steps of {size.batch} rows: {steps}; supervised learning alone sees as many rows, before reinforcement "
        f"learning {100 * size.warm_share:g} % of them. {size.test_rows} rows a test split, greedy; pass@k from {size.samples} "
        f"answers to each of {size.sampled_rows} rows at temperature 1. N = G = {size.num_answers}."
    )


def _regime(measured: Measured, folder: Path) -> tuple[str, dict[str, list[dict]]]:
    regime = measured.regime
    lines = [
        f"## Regime: {regime.name}",
        "",
        regime.told,
        "",
        *_table(measured, folder),
        "",
        *_figures(measured, folder),
    ]
    found: dict[str, list[dict]] = {}
    for variant, told in STANDING.items():
        if measured.seeds(variant):
            answers = [answer(claim, measured, variant) for claim in claims_of(regime.tasks)]
            lines += ["", f"### Claims, with `{variant}` ({told})", "", *_claims(answers)]
            found[variant] = [_plain(one) for one in answers]
    return "\n".join([*lines, ""]), found


def _table(measured: Measured, folder: Path) -> list[str]:
    """Every method, and the experts as the last rows."""
    experts = ("demo-a", "demo-b") if measured.seeds("experts") else ()
    finals = [
        f"{name}={result.folder}"
        for name in (*measured.variants(), *experts)
        for result in measured.results(name).values()
    ]
    table_1.main([*finals, "--out", str(folder)])
    return (folder / "table_1.md").read_text().splitlines()


def _figures(measured: Measured, folder: Path) -> list[str]:
    """Those of spatial transformation, as in the paper, and those that are about no task."""
    sources = [
        f"{v}={measured.study.kept_folder(measured.regime, v, seed)}"
        for v in measured.variants()
        for seed in measured.seeds(v)
    ]
    figures.main([*sources, "--out", str(folder)])
    shown = (
        "figure_3_samples_spatial_transformation",
        "figure_4_sources",
        "figure_5_pass_at_k_spatial_transformation",
        "dollars_spatial_transformation",
        "gradient_groups",
    )
    for path in folder.glob("*.svg"):  # the page shows PNG; the numbers are beside them as CSV
        path.unlink()
    for path in [p for p in folder.iterdir() if p.stem not in (*shown, "table_1")]:
        path.unlink()
    return [f"![{name}](results/{folder.name}/{name}.png)" for name in shown if (folder / f"{name}.png").exists()]


def _claims(answers: Sequence[Answer]) -> list[str]:
    lines = ["| claim | in the paper | here | differences, in points |", "|---|---|---|---|"]
    for one in answers:
        told = "<br>".join(
            f"{name}: {100 * c.difference:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]"
            for name, c in one.differences.items()
        )
        seeds = f" ({one.seeds} seed{'s' * (one.seeds > 1)})" if one.seeds else ""
        lines.append(f"| {one.claim.text} | {one.claim.where} | **{one.state}**{seeds} | {told} |")
    return lines


def _plain(one: Answer) -> dict:
    """For claims.json; p is left out where the difference is not paired."""
    numbers = {name: {k: v for k, v in asdict(c).items() if v == v} for name, c in one.differences.items()}
    said = {"claim": one.claim.text, "where": one.claim.where, "state": one.state, "seeds": one.seeds}
    return {**said, "differences": numbers}


def _pieces(pieces: Sequence[Piece], done: Mapping[str, Mapping[str, Any]]) -> str:
    seconds = {name: mark["seconds"] for name, mark in done.items()}
    lines = [
        "## Pieces",
        "",
        f"{len(seconds)} of {len(pieces)} are done. They took {sum(seconds.values()) / 3600:.1f} hours, one after the other.",
        "",
    ]
    for regime in ("world", *REGIMES):
        names = [piece.name for piece in pieces if piece.name in seconds and piece.name.startswith(regime)]
        if names:
            lines.append(
                f"- {regime}: " + ", ".join(f"{name.split('/')[-1]} {seconds[name] / 60:.1f} min" for name in names)
            )
    for regime in REGIMES:
        for seed in sorted({piece.seed for piece in pieces}):
            of_seed = [p for p in pieces if p.base and p.seed == seed and p.name.startswith(f"{regime}/")]
            bases = {done[piece.name]["base"] for piece in of_seed if piece.name in done}
            if len(bases) > 1:
                lines.append(
                    f"- {regime}, seed {seed}: its pieces start from {len(bases)} base models, made on several machines."
                )
    return "\n".join([*lines, ""])
