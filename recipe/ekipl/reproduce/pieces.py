"""What there is to do, piece by piece. A piece that was interrupted goes on: each of its commands does."""

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.splits import SPLITS
from recipe.ekipl.methods import METHODS
from recipe.ekipl.reproduce.sizes import REGIMES, Regime, Size

MAX_TOKENS = 64
PAPERS_RULE = ("ekipl.advantage.baseline=selected", "ekipl.advantage.std=selected")
ALL_CANDIDATES = ("ekipl.advantage.baseline=all", "ekipl.advantage.std=all")
VARIANTS = {**{name: name for name in METHODS}, "ekipl_all": "ekipl"}
"""What is trained -> its method. `ekipl` and `sft_ekipl` take mean and std over the kept answers, as the paper does;
`ekipl_all` over all candidates."""

SAMPLED = ("zero_shot", "reason_rft", "ekipl", "ekipl_all")
"""Whose pass@k is measured (the paper's Figure 5, and our variant)."""

EARLY = ("ekipl", "sft_ekipl", "ekipl_all")
"""Who is measured early on the way (the paper's Figure 3)."""


@dataclass(frozen=True)
class Piece:
    """Something that is done as a whole."""

    name: str
    """Its folder below the study's, `<regime>/<what>-<seed>`; also what --only chooses by."""

    commands: tuple[tuple[str, ...], ...]
    """Arguments of this interpreter, one command after the other."""

    needs: tuple[str, ...] = ()
    """Pieces that must be done before."""

    minutes: float = 0.0
    """A guess, on two quiet cores."""

    world: Path | None = None
    """Where the experts that it needs look; None: it needs none."""

    skills: tuple[float, float] = (0.0, 0.0)
    seed: int = 0


@dataclass(frozen=True)
class Study:
    """One folder of pieces."""

    out: Path
    size: Size
    seeds: tuple[int, ...]

    def world(self, seed: int) -> Path:
        return self.out / f"world-{seed}"

    def rows(self, seed: int) -> Path:
        return self.out / f"rows-{seed}"

    def base(self, regime: Regime, seed: int) -> Path:
        return self.out / regime.name / f"base-{seed}" / "model"

    def folder(self, regime: Regime, variant: str, seed: int) -> Path:
        return self.out / regime.name / f"{variant}-{seed}"


def all_pieces(study: Study) -> list[Piece]:
    """In an order in which everything that a piece needs comes before it."""
    found = []
    for seed in study.seeds:
        found.append(_world(study, seed))
        for regime in REGIMES.values():
            found += [_base(study, regime, seed), _experts(study, regime, seed)]
            found += [_method(study, regime, variant, seed) for variant in regime.variants]
    return found


def chosen(pieces: Sequence[Piece], patterns: Sequence[str]) -> list[Piece]:
    """Pieces that a pattern (fnmatch) names, and those that they need. Raises SettingsError for a pattern without any."""
    named = {piece.name: piece for piece in pieces}
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            raise SettingsError(f"--only {pattern} names no piece. --dry-run lists them.")
    wanted = {name for pattern in patterns or ["*"] for name in fnmatch.filter(named, pattern)}
    for piece in reversed(pieces):  # needs come before whatever needs them
        if piece.name in wanted:
            wanted |= set(piece.needs)
    return [piece for piece in pieces if piece.name in wanted]


def _world(study: Study, seed: int) -> Piece:
    size = study.size
    counts = ("--train", size.train_rows, "--base", size.base_rows, "--test", size.test_rows)
    draw = _words("-m", "recipe.ekipl.data.synthetic.write", "--out", study.world(seed), "--seed", seed, *counts)
    convert = ("--data", study.world(seed), "--out", study.rows(seed), "--template", "plain")
    return Piece(f"world-{seed}", (draw, _words("-m", "recipe.ekipl.data", "reason_rft", *convert)), minutes=4)


def _base(study: Study, regime: Regime, seed: int) -> Piece:
    """`lacks` is brought up from nothing, `fair` goes on from it with the skill itself."""
    size, name = study.size, f"{regime.name}/base-{seed}"
    out = ("--data", study.rows(seed), "--out", study.base(regime, seed), "--seed", seed)
    if regime.name == "lacks":
        most = () if size.base_steps is None else ("--max-steps", size.base_steps)
        command = _words(
            "-m", "recipe.ekipl.tiny.base", *out, "--task", *regime.tasks, "--round", size.base_round, *most
        )
        return Piece(name, (command,), (f"world-{seed}",), minutes=35)
    start = ("--lesson", "train", "--init", study.base(REGIMES["lacks"], seed), "--enough", 0.4)
    steps = ("--round", size.fair_round, "--max-steps", 20 * size.fair_round)
    command = _words("-m", "recipe.ekipl.tiny.base", *out, "--task", *regime.tasks, *start, *steps)
    return Piece(name, (command,), (f"world-{seed}", f"lacks/base-{seed}"), minutes=4)


def _experts(study: Study, regime: Regime, seed: int) -> Piece:
    """How good the demo experts are on the test splits, judged like everybody else."""
    folder = study.folder(regime, "experts", seed)
    commands = tuple(
        _words(
            *("-m", "recipe.ekipl.evaluate", "--expert", expert, "--config-name", "ekipl_tiny", "experts=demo"),
            *("--data", study.rows(seed), "--max-tokens", MAX_TOKENS, "--out", folder / "evaluations" / expert),
            *("--method", expert, "--train-seed", seed, "--splits", *_splits(regime)),
        )
        for expert in ("demo-a", "demo-b")
    )
    return Piece(
        f"{regime.name}/experts-{seed}", commands, (f"world-{seed}",), 2, study.world(seed), regime.skills, seed
    )


def _method(study: Study, regime: Regime, variant: str, seed: int) -> Piece:
    """Training and every evaluation of what came out."""
    method = METHODS[VARIANTS[variant]]
    trained = bool(method.lessons or method.reinforce)
    commands = [_training(study, regime, variant, seed)] if trained else []
    folder = study.folder(regime, variant, seed)
    model = folder if trained else study.base(regime, seed)
    commands.append(_evaluation(study, regime, variant, seed, model, "final"))
    if variant in SAMPLED:
        how = ("--samples", study.size.samples, "--temperature", 1)
        commands.append(_evaluation(study, regime, variant, seed, model, "samples", ("trance",), how))
    if variant in EARLY:
        for step in study.size.early_steps(regime.name):
            at = folder / "checkpoints" / f"global_step_{step}"
            commands.append(_evaluation(study, regime, variant, seed, at, f"step-{step}", _spatial()))
    steps = study.size.steps[regime.name]
    minutes = (2.5 + steps * 0.045 if method.reinforce else 0) + (steps * 0.01 + 1 if method.lessons else 0)
    minutes += 1.5 * (len(commands) - trained)
    needs = (f"world-{seed}", f"{regime.name}/base-{seed}")
    world = study.world(seed) if method.experts else None
    return Piece(f"{regime.name}/{variant}-{seed}", tuple(commands), needs, minutes, world, regime.skills, seed)


def _training(study: Study, regime: Regime, variant: str, seed: int) -> tuple[str, ...]:
    size, method = study.size, METHODS[VARIANTS[variant]]
    words = ["-m", "recipe.ekipl.methods", VARIANTS[variant], "--model", study.base(regime, seed)]
    words += [
        "--rows",
        *(study.rows(seed) / task for task in regime.tasks),
        "--run",
        study.folder(regime, variant, seed),
    ]
    if method.lessons:
        steps = size.warm_steps(regime.name) if method.reinforce else size.steps[regime.name]
        words += ["--sft-config", "ekipl_sft_tiny", "--sft-run", _lessons_folder(study, regime, variant, seed)]
        for setting in (
            f"trainer.total_training_steps={steps}",
            f"data.train_batch_size={size.batch}",
            f"trainer.seed={seed}",
        ):
            words += ["--sft", setting]
    if method.reinforce:
        early = size.early_steps(regime.name)[0]
        words += [
            "--config-name",
            "ekipl_tiny",
            f"trainer.total_training_steps={size.steps[regime.name]}",
            f"data.seed={seed}",
        ]
        words += [f"data.train_batch_size={size.batch}", f"trainer.save_freq={early}", f"trainer.test_freq={early}"]
        words += [f"ekipl.num_answers={size.num_answers}", f"actor_rollout_ref.rollout.n={size.num_answers}"]
        words += [f"ekipl.seed={seed}", "trainer.max_actor_ckpt_to_keep=null"]
        words += ALL_CANDIDATES if variant == "ekipl_all" else PAPERS_RULE
    if method.experts:
        words += ["--experts", "demo"]
    return _words(*words)


def _lessons_folder(study: Study, regime: Regime, variant: str, seed: int) -> Path:
    """Methods that begin with the same lessons share them."""
    method = METHODS[VARIANTS[variant]]
    return study.folder(regime, "warm" if method.reinforce else variant, seed)


def _evaluation(
    study: Study,
    regime: Regime,
    variant: str,
    seed: int,
    model: Path,
    name: str,
    splits: Sequence[str] = (),
    how: Sequence[object] = (),
) -> tuple[str, ...]:
    return _words(
        *("-m", "recipe.ekipl.evaluate", "--model", model, "--data", study.rows(seed), "--max-tokens", MAX_TOKENS),
        *(
            "--out",
            study.folder(regime, variant, seed) / "evaluations" / name,
            "--method",
            variant,
            "--train-seed",
            seed,
        ),
        *(*how, "--splits", *(splits or _splits(regime))),
    )


def _splits(regime: Regime) -> list[str]:
    return [split.name for split in SPLITS if split.is_test and split.task in regime.tasks]


def _spatial() -> list[str]:
    return [split.name for split in SPLITS if split.is_test and split.task == "spatial_transformation"]


def _words(*words: object) -> tuple[str, ...]:
    return (sys.executable, *map(str, words))
