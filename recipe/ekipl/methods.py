"""The paper's training methods by name, each a chain of stages. One switch: METHOD=.

    python -m recipe.ekipl.methods reason_rft --model Qwen/Qwen2-VL-2B-Instruct --rows data/rows/visual_counting --run runs/rft

    zero_shot     nothing
    ans_sft       supervised learning on answers
    cot_sft       supervised learning on reasoning and answers
    grpo          GRPO (Reason-RFT-Zero)
    reason_rft    CoT-SFT, then GRPO
    ekipl         GRPO with experts (Vision-EKIPL)
    sft_ekipl     CoT-SFT, then GRPO with experts (in the paper's Figure 3)

Each stage is a run of its own (recipe.ekipl.sft, recipe.ekipl.train) and leaves a Hugging Face folder that the next stage and
the evaluation read. A stage that is done is not done again; one that was interrupted goes on. What follows as key=value are
settings of the reinforcement learning; those of the supervised stage are given by --sft (--sft data.train_max_samples=1600
for as many rows as Reason-RFT begins with; all without). The last line of stdout is
{"method": ..., "model": ...}, with the summary of the run after reinforcement learning.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.checkpoint import find_checkpoint, merge
from recipe.ekipl.lanes import Lanes, stop_like_ctrl_c
from recipe.ekipl.measure.summary import summarize_run
from recipe.ekipl.run_files import RunFiles


@dataclass(frozen=True)
class Method:
    """Which stages there are."""

    lessons: str = ""
    """What supervised learning reads: `sft` (reasoning and answer), `ans` (answer), or nothing."""

    reinforce: bool = False
    experts: bool = False


METHODS = {
    "zero_shot": Method(),
    "ans_sft": Method(lessons="ans"),
    "cot_sft": Method(lessons="sft"),
    "grpo": Method(reinforce=True),
    "reason_rft": Method(lessons="sft", reinforce=True),
    "ekipl": Method(reinforce=True, experts=True),
    "sft_ekipl": Method(lessons="sft", reinforce=True, experts=True),
}


@dataclass(frozen=True)
class Stage:
    """One run."""

    name: str
    folder: Path
    command: Callable[[str], list[str]]
    """Model that it starts from -> command line."""

    needs: tuple[str, ...] = ()
    """One stage at a time, in their order (lanes.py)."""


class StageFailed(Exception):
    """With its exit status."""

    def __init__(self, status: int):
        super().__init__(f"exit status {status}")
        self.status = status


def stages_of(args: argparse.Namespace) -> list[Stage]:
    """The stages of `args.method`. Raises SettingsError for settings of a stage that the method does not have."""
    method = METHODS[args.method]
    problems = []
    if args.sft and not method.lessons:
        problems.append(f"--sft {' '.join(args.sft)}: {args.method} has no supervised stage.")
    if args.overrides and not method.reinforce:
        problems.append(
            f"{' '.join(args.overrides)}: {args.method} has no reinforcement learning; --sft sets the other."
        )
    if method.experts and args.experts == "none":
        problems.append(f"--experts none: {args.method} is about experts. Name some of recipe/ekipl/config/experts.")
    saved = [word for word in args.overrides if re.match(r"\+*trainer\.save_freq=", word)]
    if saved and re.search(r"=(-\d+|0)$", saved[-1]):
        problems.append(
            f"{saved[-1]}: a method leaves a model, which is its last checkpoint. Give 1 or more, or train with python -m recipe.ekipl.train."
        )
    if problems:
        raise SettingsError(*problems)
    found = []
    if method.lessons:
        folder = args.sft_run or (args.run.with_name(f"{args.run.name}-sft") if method.reinforce else args.run)
        found.append(Stage("supervised", folder, lambda model: _supervised(args, method, folder, model)))
    if method.reinforce:
        found.append(Stage("reinforcement", args.run, lambda model: _reinforcement(args, method, model)))
    return found


def _supervised(args: argparse.Namespace, method: Method, folder: Path, model: str) -> list[str]:
    lessons = _files(args.rows, f"train.{method.lessons}.parquet")
    settings = [f"model.path={model}", f"data.train_files={lessons}", f"run_dir={folder}", *args.sft]
    assumed = ["--assume-rows", str(args.assume_rows)] if args.dry_run else []
    return [sys.executable, "-m", "recipe.ekipl.sft", "--config-name", args.sft_config, *assumed, *settings]


def _reinforcement(args: argparse.Namespace, method: Method, model: str) -> list[str]:
    held_out = [path for path in _all(args.rows, "*.rl.parquet") if path.name != "train.rl.parquet"]
    settings = [
        f"experts={args.experts if method.experts else 'none'}",
        f"actor_rollout_ref.model.path={model}",
        f"data.train_files={_files(args.rows, 'train.rl.parquet')}",
        f"data.val_files={_listed(held_out)}",
        f"trainer.experiment_name={args.run.name}",
        f"ekipl.run_dir={args.run}",
        *args.overrides,
    ]
    verbose = ["--verbose"] * args.verbose
    return [sys.executable, "-m", "recipe.ekipl.train", "--config-name", args.config_name, *settings, *verbose]


def _files(folders: Sequence[Path], name: str) -> str:
    return _listed([folder.resolve() / name for folder in folders])


def _all(folders: Sequence[Path], pattern: str) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.resolve().glob(pattern))]


def _listed(paths: Sequence[Path]) -> str:
    """As Hydra reads a list."""
    return f"[{','.join(map(str, paths))}]"


def output_of(stage: Stage) -> str:
    """Hugging Face folder of a finished stage. Raises SettingsError when it left none."""
    return str(merge(find_checkpoint(stage.folder)))


def run(args: argparse.Namespace) -> int:
    """Every stage, one after the other; the exit status of the first that fails, else 0."""
    model = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    stages, lanes = stages_of(args), Lanes(1)

    def work(stage: Stage) -> None:
        nonlocal model
        done = RunFiles(stage.folder).last_checkpoint()
        place = f"stage {stages.index(stage) + 1} of {len(stages)}"
        print(f"== {args.method}, {place}: {stage.name}, {done} steps done", flush=True)
        if status := lanes.call(stage.command(model) + ["--dry-run"] * args.dry_run):
            raise StageFailed(status)
        if not args.dry_run:  # in a dry run later stages are planned with the model that the first starts from
            model = output_of(stage)

    try:
        lanes.run_all(stages, work)
    except StageFailed as failed:
        return failed.status
    result = _summary(stages) if not args.dry_run else {}
    print(json.dumps({**result, "method": args.method, "model": model}))
    return 0


def _summary(stages: Sequence[Stage]) -> dict[str, Any]:
    """Of the reinforcement learning, where there was one."""
    if not stages or stages[-1].name != "reinforcement":
        return {}
    files = RunFiles(stages[-1].folder)
    return summarize_run(files, files.steps())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m recipe.ekipl.methods", description=__doc__, formatter_class=raw)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--model", required=True, help="Hugging Face folder or name that the first stage starts from")
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="a task's parquet files; several: mixed tasks",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder of the last stage")
    parser.add_argument(
        "--sft-run", type=Path, help="of a supervised first stage (<run>-sft); methods that share it do it once"
    )
    parser.add_argument("--experts", default="paper", help="file in config/experts for ekipl (default: %(default)s)")
    parser.add_argument(
        "--config-name", default="ekipl_trainer", help="of reinforcement learning (default: %(default)s)"
    )
    parser.add_argument("--sft-config", default="ekipl_sft", help="of supervised learning (default: %(default)s)")
    parser.add_argument(
        "--sft", action="append", default=[], metavar="key=value", help="setting of supervised learning"
    )
    parser.add_argument("--dry-run", action="store_true", help="check every stage, print its plan, and exit")
    parser.add_argument(
        "--assume-rows",
        type=int,
        default=0,
        metavar="N",
        help="in a dry run, for supervised training files that are not here",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what verl, vLLM and Ray print in reinforcement learning"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of reinforcement learning")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_intermixed_args(argv)
    args.overrides += [word for word in map(str, args.rows) if "=" in word]
    args.rows = [path for path in args.rows if "=" not in str(path)]
    args.run, args.sft_run = args.run.resolve(), args.sft_run and args.sft_run.resolve()
    stop_like_ctrl_c()
    try:
        return run(args)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
