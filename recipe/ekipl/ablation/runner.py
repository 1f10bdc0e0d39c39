"""Trains one cell: world, model, experts, verl. Everything that exists is used again, so the same command goes on."""

import contextlib
import fcntl
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from recipe.ekipl.ablation.cells import REGIMES, VARIANTS, Cell
from recipe.ekipl.ablation.results import Line, make_line
from recipe.ekipl.lanes import Lanes
from recipe.ekipl.run_files import RunFiles
from recipe.ekipl.tiny.serving import serving

TASK = "visual_counting"
FAIR = ("--round", "10", "--enough", "0.4")  # steps between two looks, and the share right where the fair policy stops
LOOK_WORLD = ("--train", "64", "--base", "96", "--test", "8")
LOOK_LESSON = ("--round", "2", "--max-steps", "2")
LOOK_SETTINGS = ("data.train_batch_size=4", "ekipl.num_answers=4", "actor_rollout_ref.rollout.n=4")
LOOK_S = 0.5  # between two looks whether the world is free
LOOKS = 4  # validations a run, the one before training apart


class CellFailed(RuntimeError):
    """With the command and where its output is."""


def train_cell(cell: Cell, out: Path, lanes: Lanes) -> Line:
    """Runs what is missing of `cell` below `out`; returns its line. Raises CellFailed, ServerError, Stopped.

    Metrics, report and logs stay in its folder; checkpoints and what else is large go.
    """
    folder = out / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    with alone(cell.world, lanes):
        rows, model = prepare(cell, folder, lanes)
    started = time.time()
    tests = sorted(str(p) for p in (rows / TASK).glob("*.rl.parquet") if not p.name.startswith("train"))
    with experts(cell, folder, lanes) as address:
        words = settings(cell, rows, model, folder, tests)
        call(lanes, folder / "train.out", "recipe.ekipl.train", *words, environment=address)
    files = RunFiles(folder)
    line = make_line(cell, files.write_metrics(), rows_of(tests[0]), time.time() - started)
    for heavy in ("checkpoints", "groups", "tensorboard"):
        shutil.rmtree(folder / heavy, ignore_errors=True)
    return line


@contextlib.contextmanager
def alone(world: str, lanes: Lanes) -> Iterator[None]:
    """One cell at a time makes what the cells of a world share; the others wait and find it there."""
    Path("data").mkdir(exist_ok=True)
    with open(f"data/synthetic-{world}.lock", "w") as lock:
        while not _taken(lock):
            lanes.check()
            time.sleep(LOOK_S)
        yield


def _taken(lock: IO[str]) -> bool:
    """It goes with the process, or when the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def prepare(cell: Cell, folder: Path, lanes: Lanes) -> tuple[Path, Path]:
    """World, rows and models of the cell's seed and regime; made once and shared by all cells."""
    world, rows = Path(f"data/synthetic-{cell.world}"), Path(f"data/parquet-{cell.world}")
    run = partial(call, lanes, folder / "prepare.out")
    seed, small = str(cell.seed), LOOK_WORLD if cell.look else ()
    run("recipe.ekipl.data.synthetic.write", "--out", str(world), "--tasks", TASK, "--seed", seed, *small)
    convert = ("reason_rft", "--data", str(world), "--out", str(rows), "--tasks", TASK, "--template", "plain")
    run("recipe.ekipl.data", *convert)
    base, model = (Path(REGIMES[name].model.format(world=cell.world)) for name in ("lacks_skill", cell.regime))
    run("recipe.ekipl.tiny.base", *lesson(cell, rows, base))
    if model != base:
        run("recipe.ekipl.tiny.base", *lesson(cell, rows, model), "--lesson", "train", "--init", str(base), *FAIR)
    if VARIANTS[cell.variant].experts == "vllm":
        run("recipe.ekipl.tiny.base", *lesson(cell, rows, vllm_expert(cell)), "--lesson", "train", "--init", str(base))
    return rows, model


def vllm_expert(cell: Cell) -> Path:
    """The model behind the vLLM server: taught the task itself."""
    return Path(REGIMES["lacks_skill"].model.format(world=cell.world) + "-expert")


def lesson(cell: Cell, rows: Path, out: Path) -> list[str]:
    """Arguments of recipe.ekipl.tiny.base, which does nothing when the model is there."""
    small = LOOK_LESSON if cell.look else ()
    return ["--data", str(rows), "--task", TASK, "--seed", str(cell.seed), "--out", str(out), *small]


def settings(cell: Cell, rows: Path, model: Path, folder: Path, tests: list[str]) -> list[str]:
    """Overrides of recipe.ekipl.train."""
    variant = VARIANTS[cell.variant]
    every = max(cell.steps // LOOKS, 1)
    return [
        "--config-name=ekipl_tiny",
        f"experts={variant.experts}",
        *variant.overrides,
        f"actor_rollout_ref.model.path={model.resolve()}",
        f"data.train_files={(rows / TASK / 'train.rl.parquet').resolve()}",
        f"data.val_files=[{','.join(str(Path(test).resolve()) for test in tests)}]",
        f"data.seed={cell.seed}",
        f"ekipl.seed={cell.seed}",
        f"ekipl.run_dir={folder.resolve()}",
        "ekipl.keep_groups=false",
        f"actor_rollout_ref.actor.optim.lr={cell.lr}",
        f"trainer.experiment_name={cell.name}",
        f"trainer.total_training_steps={cell.steps}",
        f"trainer.test_freq={every}",
        f"trainer.save_freq={every}",
        "trainer.max_actor_ckpt_to_keep=2",  # verl deletes before it saves: with 1 a kill in between costs the run
        *(LOOK_SETTINGS if cell.look else ()),
    ]


@contextlib.contextmanager
def experts(cell: Cell, folder: Path, lanes: Lanes) -> Iterator[dict[str, str]]:
    """The cell's experts, ended afterwards: where they are, for the environment of the training."""
    kind = VARIANTS[cell.variant].experts
    if kind == "none":
        yield {}
        return
    if kind == "vllm":
        command = ["recipe.ekipl.tiny.serve", "--model", str(vllm_expert(cell))]
    else:
        world = ("--data", f"data/synthetic-{cell.world}", "--seed", str(cell.seed))
        command = ["recipe.ekipl.tiny.demo_experts", *world, *REGIMES[cell.regime].personas]
    with serving(*command, ready=folder / "expert.url", log=folder / "expert.out", check=lanes.check) as address:
        yield {"EKIPL_DEMO_URL": address, "EKIPL_VLLM_URL": f"{address}/v1", "EKIPL_VLLM_MODEL": "expert"}


def call(lanes: Lanes, log: Path, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    if code := lanes.call([sys.executable, "-m", module, *arguments], log, environment):
        raise CellFailed(f"python -m {module} ended with {code}; its output is in {log}")


def rows_of(path: str) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows
