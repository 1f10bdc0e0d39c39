"""What there is to do, piece by piece. A piece that was interrupted goes on: each of its commands does."""

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.splits import SPLITS
from recipe.ekipl.methods import METHODS
from recipe.ekipl.reproduce.digests import digest_of
from recipe.ekipl.reproduce.sizes import LACKS, REGIMES, Regime, Size

MAX_TOKENS = 64
PAPERS_RULE = ("ekipl.advantage.baseline=selected", "ekipl.advantage.std=selected")
ALL_CANDIDATES = ("ekipl.advantage.baseline=all", "ekipl.advantage.std=all")
VARIANTS = {**{name: name for name in METHODS}, "ekipl_all": "ekipl"}
"""What is trained -> its method. `ekipl` and `sft_ekipl` take mean and std over the kept answers, as the paper does;
`ekipl_all` over all candidates."""

WARM = "warm"
"""Lessons before reinforcement learning: methods that begin with them share them."""

SAMPLED = ("zero_shot", "reason_rft", "ekipl", "ekipl_all")
"""Whose pass@k is measured (the paper's Figure 5, and our variant)."""

SHARED = ("experts",)
"""What is made once for all seeds. A seed is that of training and of the base model, which decides a lot at this size; training
rows and test rows are the same for all."""

MAKES_MODELS = ("base", WARM)
"""Pieces that are there for others: they leave a model, and no numbers."""

# Seconds that a piece is guessed to take.
RUN_START_S, STEP_S = 70, 7  # Ray, verl and vLLM; 16 rows of 24 answers
LESSONS_START_S, LESSON_S = 30, 0.5
LOOK_S = 10  # at a base model, beside its lessons
EVALUATION_START_S, ANSWER_S = 30, 0.02


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
    """A guess."""

    world: Path | None = None
    """Where the experts that it needs look; None: it needs none."""

    skills: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    base: Path | None = None
    """Base model that it starts from."""

    digest: str = ""
    """Of all that its numbers depend on; what was kept under another is done again."""

    @property
    def leaves_numbers(self) -> bool:
        """Or it is there for others only, and is made where they are made."""
        return self.name != "world" and self.name.split("/")[-1].rpartition("-")[0] not in MAKES_MODELS


@dataclass(frozen=True)
class Study:
    """One folder of pieces."""

    out: Path
    """Where pieces are made."""

    kept: Path
    """Where what is kept of them goes (kept.py)."""

    size: Size
    seeds: tuple[int, ...]

    @property
    def world(self) -> Path:
        return self.out / "world"

    @property
    def rows(self) -> Path:
        return self.out / "rows"

    def base(self, regime: Regime, seed: int) -> Path:
        return self.folder(regime, "base", seed) / "model"

    def name(self, regime: Regime, variant: str, seed: int) -> str:
        """Of a piece."""
        return f"{regime.name}/{variant}" if variant in SHARED else f"{regime.name}/{variant}-{seed}"

    def folder(self, regime: Regime, variant: str, seed: int) -> Path:
        return self.out / self.name(regime, variant, seed)

    def kept_folder(self, regime: Regime, variant: str, seed: int) -> Path:
        return self.kept / self.name(regime, variant, seed)

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        return (0,) if variant in SHARED else self.seeds


def all_pieces(study: Study) -> list[Piece]:
    """In an order in which everything that a piece needs comes before it, seed by seed: an early stop leaves whole ones."""
    return with_digests(study, _all_pieces(study))


def with_digests(study: Study, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces, each with its digest; what a piece needs comes before it."""
    found: dict[str, str] = {}
    for piece in pieces:
        needs = [found[name] for name in piece.needs if name in found]
        found[piece.name] = digest_of(piece.commands, study.out, [piece.skills, piece.seed], needs)
    return [replace(piece, digest=found[piece.name]) for piece in pieces]


def _all_pieces(study: Study) -> list[Piece]:
    found = [_world(study), *(_experts(study, regime) for regime in REGIMES.values())]
    for seed in study.seeds:
        found += [_base(study, regime, seed) for regime in REGIMES.values()]
        for regime in REGIMES.values():
            found.append(_warm(study, regime, seed))
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


def _world(study: Study) -> Piece:
    size = study.size
    counts = ("--train", size.train_rows, "--base", size.base_rows, "--test", size.test_rows)
    draw = _words("-m", "recipe.ekipl.data.synthetic.write", "--out", study.world, "--seed", 0, *counts)
    convert = ("--data", study.world, "--out", study.rows, "--template", "plain")
    return Piece("world", (draw, _words("-m", "recipe.ekipl.data", "reason_rft", *convert)), minutes=4)


def _base(study: Study, regime: Regime, seed: int) -> Piece:
    """`lacks` is brought up from nothing, `fair` goes on from it with the skill itself."""
    size, name = study.size, study.name(regime, "base", seed)
    words = ("--data", study.rows, "--out", study.base(regime, seed), "--seed", seed, "--task", *regime.tasks)
    if regime is LACKS:
        how: tuple[object, ...] = ("--round", size.base_round, "--max-steps", size.base_steps, "--decay")
        seconds = LESSONS_START_S + size.base_steps * (LESSON_S + LOOK_S / size.base_round)
        needs: tuple[str, ...] = ("world",)
    else:
        how = ("--round", size.fair_round, "--max-steps", 20 * size.fair_round, "--enough", 0.4)
        how = ("--lesson", "train", "--init", study.base(LACKS, seed), *how)
        seconds, needs = LESSONS_START_S + 6.0 * (LOOK_S + size.fair_round), ("world", study.name(LACKS, "base", seed))
    return Piece(name, (_words("-m", "recipe.ekipl.tiny.base", *words, *how),), needs, seconds / 60)


def _experts(study: Study, regime: Regime) -> Piece:
    """How good the demo experts are on the test splits, judged like everybody else."""
    folder = study.folder(regime, "experts", 0)
    commands = tuple(
        _words(
            *("-m", "recipe.ekipl.evaluate", "--expert", expert, "--config-name", "ekipl_tiny", "experts=demo"),
            *("--data", study.rows, "--max-tokens", MAX_TOKENS, "--out", folder / "evaluations" / expert),
            *("--method", expert, "--train-seed", 0, "--splits", *_splits(regime)),
        )
        for expert in ("demo-a", "demo-b")
    )
    return Piece(study.name(regime, "experts", 0), commands, ("world",), 2, study.world, regime.skills, 0)


def _warm(study: Study, regime: Regime, seed: int) -> Piece:
    """The first lessons of the methods that go on with reinforcement learning; they find them done."""
    steps = study.size.warm_steps(regime.name)
    words = (
        "-m",
        "recipe.ekipl.methods",
        "cot_sft",
        *_start(study, regime, seed),
        "--run",
        study.folder(regime, WARM, seed),
    )
    command = _words(*words, *_lessons(study, seed, steps))
    needs, minutes = ("world", study.name(regime, "base", seed)), (LESSONS_START_S + steps * LESSON_S) / 60
    return Piece(study.name(regime, WARM, seed), (command,), needs, minutes, base=study.base(regime, seed))


def _start(study: Study, regime: Regime, seed: int) -> tuple[object, ...]:
    return "--model", study.base(regime, seed), "--rows", *(study.rows / task for task in regime.tasks)


def _lessons(study: Study, seed: int, steps: int) -> list[str]:
    """Settings of supervised learning."""
    settings = {"trainer.total_training_steps": steps, "data.train_batch_size": study.size.batch, "trainer.seed": seed}
    set_ = [word for key, value in settings.items() for word in ("--sft", f"{key}={value}")]
    return ["--sft-config", "ekipl_sft_tiny", *set_]


def _method(study: Study, regime: Regime, variant: str, seed: int) -> Piece:
    """Training and every evaluation of what came out."""
    size, method = study.size, METHODS[VARIANTS[variant]]
    trained = bool(method.lessons or method.reinforce)
    commands = [_training(study, regime, variant, seed)] if trained else []
    folder = study.folder(regime, variant, seed)
    model = folder if trained else study.base(regime, seed)
    commands.append(_evaluation(study, regime, variant, seed, model, "final"))
    answers = size.test_rows * len(_splits(regime))
    if variant in SAMPLED:
        how = ("--samples", size.samples, "--temperature", 1, "--limit", size.sampled_rows)
        commands.append(_evaluation(study, regime, variant, seed, model, "samples", ("trance",), how))
        answers += size.samples * size.sampled_rows
    for step in (
        size.early_steps(regime.name) if trained else ()
    ):  # Figure 3: all methods after the same numbers of rows
        at = folder / "checkpoints" / f"global_step_{step}"
        commands.append(_evaluation(study, regime, variant, seed, at, f"step-{step}", _spatial()))
        answers += size.test_rows * len(_spatial())
    seconds = _training_seconds(study, regime, variant)
    seconds += EVALUATION_START_S * (len(commands) - trained) + ANSWER_S * answers
    needs = ["world", study.name(regime, "base", seed)]
    if method.lessons and method.reinforce:
        needs.append(study.name(regime, WARM, seed))
    world, name = study.world if method.experts else None, study.name(regime, variant, seed)
    base = study.base(regime, seed)
    return Piece(name, tuple(commands), tuple(needs), seconds / 60, world, regime.skills, seed, base)


def _training_seconds(study: Study, regime: Regime, variant: str) -> float:
    steps, method = study.size.steps[regime.name], METHODS[VARIANTS[variant]]
    if method.reinforce:
        return RUN_START_S + steps * STEP_S
    return LESSONS_START_S + steps * LESSON_S if method.lessons else 0.0


def _training(study: Study, regime: Regime, variant: str, seed: int) -> tuple[str, ...]:
    size, method = study.size, METHODS[VARIANTS[variant]]
    words = ["-m", "recipe.ekipl.methods", VARIANTS[variant], *_start(study, regime, seed)]
    words += ["--run", study.folder(regime, variant, seed)]
    if method.lessons and method.reinforce:
        words += ["--sft-run", study.folder(regime, WARM, seed), *_lessons(study, seed, size.warm_steps(regime.name))]
    elif method.lessons:
        words += _lessons(study, seed, size.steps[regime.name])
        words += [
            "--sft",
            f"trainer.save_freq={size.early_steps(regime.name)[0]}",
            "--sft",
            "trainer.max_ckpt_to_keep=null",
        ]
    if method.reinforce:
        words += ["--config-name", "ekipl_tiny", f"trainer.total_training_steps={size.steps[regime.name]}"]
        words += [f"data.train_batch_size={size.batch}", f"trainer.save_freq={size.early_steps(regime.name)[0]}"]
        words += ["trainer.val_before_train=false", "trainer.test_freq=-1"]  # checkpoints are evaluated, row by row
        words += [f"ekipl.num_answers={size.num_answers}", f"actor_rollout_ref.rollout.n={size.num_answers}"]
        words += [f"data.seed={seed}", f"ekipl.seed={seed}", "trainer.max_actor_ckpt_to_keep=null"]
        words += ALL_CANDIDATES if variant == "ekipl_all" else PAPERS_RULE
    if method.experts:
        words += ["--experts", "demo_priced"]
    return _words(*words)


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
    out = study.folder(regime, variant, seed) / "evaluations" / name
    words = ("-m", "recipe.ekipl.evaluate", "--model", model, "--data", study.rows, "--max-tokens", MAX_TOKENS)
    named = ("--out", out, "--method", variant, "--train-seed", seed)
    return _words(*words, *named, *how, "--splits", *(splits or _splits(regime)))


def _splits(regime: Regime) -> list[str]:
    return [split.name for split in SPLITS if split.is_test and split.task in regime.tasks]


def _spatial() -> list[str]:
    return [split.name for split in SPLITS if split.is_test and split.task == "spatial_transformation"]


def _words(*words: object) -> tuple[str, ...]:
    return (sys.executable, *map(str, words))
