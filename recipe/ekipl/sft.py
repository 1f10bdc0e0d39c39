"""Supervised learning: verl's own SFT trainer on rows that recipe.ekipl.data wrote, as a run that can be gone on with.

    python -m recipe.ekipl.sft [--config-name ekipl_sft] [--dry-run] model.path=... data.train_files=... run_dir=... [key=value]

The run's folder gets config.yaml, sft.log, losses/, and checkpoints/global_step_<n>/huggingface, a model that the next stage
and the evaluation read. A run that has done all its steps returns at once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict
from tqdm import tqdm

from ekipl_rollout.errors import SettingsError
from recipe.ekipl import cpu
from recipe.ekipl.compose import compose_config, other_method, save_resolved
from recipe.ekipl.evaluate.checkpoint import find_checkpoint
from recipe.ekipl.hardware.machine import look
from recipe.ekipl.processes import MARK, only_driver
from recipe.ekipl.run_files import RunFiles

LOOK_SECONDS = 0.5
LOG_SECONDS = 20.0  # between two lines when the output is no terminal
TRAINER = "verl.trainer.sft_trainer"
OF_THE_LESSONS = ("model.path", *(f"data.{name}" for name in ("train_files", "train_max_samples", "train_batch_size")))
"""What must not change in a run that goes on, or is found done."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-name", default="ekipl_sft", help="file in recipe/ekipl/config (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    parser.add_argument(
        "--assume-rows", type=int, default=0, metavar="N", help="in a dry run, for training files that are not here"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in Hydra's syntax")
    args = parser.parse_args(argv)
    if cpu.wanted():
        os.environ.update(cpu.environment())
    try:
        if args.dry_run:
            return show(args)
        config = read_config(args.config_name, args.overrides)
        print(render(config), flush=True)
        print(json.dumps({"model": str(learn(config)), "steps": config.trainer.total_training_steps}))
    except (SettingsError, SftError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on from its last checkpoint.", file=sys.stderr)
        return 130
    return 0


def show(args: argparse.Namespace) -> int:
    """The plan; training files that are not here are planned with as many rows as args says, and named."""
    absent = [name for name in _files(compose_config(args.config_name, args.overrides)) if not Path(name).is_file()]
    with tempfile.TemporaryDirectory() as folder:
        stand_in = []
        if absent and args.assume_rows:
            stand_in = [f"data.train_files={_stand_in(Path(folder), args.assume_rows)}"]
        config = read_config(args.config_name, [*args.overrides, *stand_in], has_gpus=True)
        print(render(config), flush=True)
    missing = [problem] if (problem := _gpu_problem(config)) else []
    if absent:
        missing.append(
            f"{', '.join(absent)} not found; planned with {args.assume_rows} rows. Get them with bash "
            "scripts/prepare_data.sh, or convert a copy with python -m recipe.ekipl.data reason_rft."
        )
    print("".join(["\nmissing:\n"] * bool(missing) + [f"  - {each}\n" for each in missing]), end="", file=sys.stderr)
    return 0


def _stand_in(folder: Path, rows: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"messages": [""] * rows}), folder / "assumed.parquet")
    return folder / "assumed.parquet"


class SftError(Exception):
    """verl's SFT trainer ended without a model; the message holds the end of its log."""


def read_config(config_name: str, overrides: Sequence[str], has_gpus: bool = False) -> DictConfig:
    """The checked config, with absolute paths and the number of steps. Raises SettingsError with every problem.

    has_gpus: do not look for them, for a plan that is made elsewhere."""
    config = compose_config(config_name, overrides)
    gpus = filter(None, [] if has_gpus else [_gpu_problem(config)])
    if problems := [*_problems(config), *gpus]:
        raise SettingsError(*problems)
    with open_dict(config):
        config.run_dir = str(Path(config.run_dir).resolve())
        config.data.train_files = [str(Path(name).resolve()) for name in _files(config)]
        if config.trainer.total_training_steps is None:
            config.trainer.total_training_steps = config.trainer.total_epochs * (_rows(config) // _batch(config))
    return config


Enough = Callable[[int, Path], bool]
"""(step, Hugging Face folder of its checkpoint) -> whether it has learnt enough."""


def learn(config: DictConfig, enough: Enough | None = None) -> Path:
    """Trains to the configured step, from the last checkpoint on; returns the Hugging Face folder.

    `enough` is shown the checkpoints as they come, while the training goes on, and may end it; the folder is then the one
    that was enough. Raises SettingsError when another process is at it or the folder holds other lessons, SftError when the
    trainer fails.
    """
    files, steps = RunFiles(config.run_dir), config.trainer.total_training_steps
    done = files.last_checkpoint()
    if done and (problems := other_method(files.root / "config.yaml", config, OF_THE_LESSONS, "run_dir")):
        raise SettingsError(*problems)
    if enough and done and enough(done, _folder(files, done)):
        return _folder(files, done)
    if done < steps:  # else two methods that share these lessons may look at the same time
        with only_driver(files.root):
            save_resolved(config, files.root / "config.yaml")
            (files.root / "plan.json").write_text(json.dumps({"batch": _batch(config), "steps": steps}))
            done = _train(config, files, enough)
    return _folder(files, done)


def _folder(files: RunFiles, step: int) -> Path:
    return find_checkpoint(files.root / "checkpoints" / f"global_step_{step}").folder


def _train(config: DictConfig, files: RunFiles, enough: Enough | None) -> int:
    """Runs verl's trainer; returns the step that was enough, or the last one."""
    start, log = files.last_checkpoint(), files.root / "sft.log"
    losses = files.root / "losses" / f"from-{start:06d}.jsonl"
    losses.parent.mkdir(exist_ok=True)
    losses.write_text("")
    environment = {**os.environ, **_environment(config), "VERL_FILE_LOGGER_PATH": str(losses), MARK: str(files.root)}
    with open(log, "ab") as output:
        process = subprocess.Popen(_command(config), env=environment, stdout=output, stderr=output)
    total = config.trainer.total_training_steps
    try:
        for step in _checkpoints(process, files, losses, total):
            if enough and enough(step, _folder(files, step)):
                return step
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode or files.last_checkpoint() < total:
        tail = log.read_text(errors="replace")[-2000:]
        raise SftError(f"verl's SFT trainer ended with status {process.returncode}; the end of {log}:\n{tail}")
    return total


def _checkpoints(process: subprocess.Popen, files: RunFiles, losses: Path, total: int) -> Iterator[int]:
    """The steps of new checkpoints until the trainer ends, and a bar: a step for each line of verl's file logger."""
    every = 0.1 if sys.stderr.isatty() else LOG_SECONDS
    seen = files.last_checkpoint()
    bar = tqdm(initial=seen, total=total, desc="supervised", unit="step", mininterval=every)
    with open(losses, encoding="utf-8") as lines, bar:
        running = True
        while running:
            running = process.poll() is None
            if steps := lines.read().count("\n"):
                bar.update(steps)
            newest = files.last_checkpoint()
            # in order, also those that came during a look: the same seed, the same model
            for step in files.checkpoints():
                if seen < step <= newest:
                    yield step
            seen = max(seen, newest)
            if running:
                time.sleep(LOOK_SECONDS)


def _command(config: DictConfig) -> list[str]:
    processes = config.trainer.n_gpus_per_node
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    hydra = ["--config-path", config.run_dir, "--config-name", "config", f"hydra.run.dir={config.run_dir}"]
    return [sys.executable, *many, "-m", TRAINER, *hydra, "hydra.output_subdir=null"]


def _environment(config: DictConfig) -> dict[str, str]:
    """One process needs no launcher, only what a launcher would have set."""
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    # Threads that spin at OpenMP's barriers make a step three to ten times slower when anything else runs; ones that
    # sleep cost a seventh when nothing does.
    share = max(1, (os.cpu_count() or 1) // config.trainer.n_gpus_per_node)
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share)), "OMP_WAIT_POLICY": "passive"}
    platform = {**cpu.environment(), **threads} if cpu.is_selected() else {}
    return {**platform, **(rank if config.trainer.n_gpus_per_node == 1 else {})}


def render(config: DictConfig) -> str:
    """The plan for people."""
    steps, batch = config.trainer.total_training_steps, _batch(config)
    lines = [
        ("model", config.model.path),
        ("data", f"{_rows(config)} rows of {', '.join(Path(name).name for name in config.data.train_files)}"),
        ("steps", f"{steps} of {batch} rows = {steps * batch / max(_rows(config), 1):.2f} epochs"),
        ("done", f"{RunFiles(config.run_dir).last_checkpoint()} steps"),
        ("run folder", config.run_dir),
    ]
    return "\n".join(f"  {name:<11} {value}" for name, value in lines)


def _problems(config: DictConfig) -> Iterator[str]:
    for name in _files(config):
        if not Path(name).is_file():
            yield f"data.train_files: {name} does not exist. Make it with `python -m recipe.ekipl.data`."
        elif "messages" not in _columns(name):
            yield f"data.train_files: {name} has no column `messages`. Take a .sft.parquet or .ans.parquet file."
    if not _files(config):
        yield "data.train_files is empty. Name a .sft.parquet (CoT-SFT) or .ans.parquet (ANS-SFT) file."
    model = str(config.model.path)
    if model.startswith(("/", "./", "../")) and not Path(model, "config.json").is_file():
        yield f"model.path={model} holds no config.json. Give a Hugging Face folder or the name of a model."
    if config.trainer.nnodes > 1:
        yield f"trainer.nnodes={config.trainer.nnodes}: this command starts the processes of one machine. Set 1."
    if all(Path(name).is_file() for name in _files(config)) and _rows(config) < _batch(config):
        yield f"data.train_batch_size={_batch(config)} is more than the {_rows(config)} rows. Lower it."


def _gpu_problem(config: DictConfig) -> str:
    wanted, have = config.trainer.n_gpus_per_node, len(look(Path("."), ask_cluster=False).gpus)
    if config.trainer.device == "cpu" or cpu.is_selected() or wanted <= have:
        return ""
    return f"trainer.n_gpus_per_node={wanted}, but {have} GPUs are found here. Set at most as many (NGPUS={have} before a script)."


def _files(config: DictConfig) -> list[str]:
    files = config.data.train_files
    return [files] if isinstance(files, str) else list(files or [])


def _columns(name: str) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_schema(name).names


def _rows(config: DictConfig) -> int:
    """Rows that are learnt from."""
    from recipe.ekipl.data.questions import count_rows

    rows, most = count_rows(_files(config)), config.data.train_max_samples
    return min(rows, most) if most > 0 else rows


def _batch(config: DictConfig) -> int:
    return int(config.data.train_batch_size)


if __name__ == "__main__":
    sys.exit(main())
