"""Can this run here? Composes, checks and plans it in seconds, and says exactly what is missing.

    python -m recipe.ekipl.hardware [--dry-run] [--assume-rows N] [--config-name ekipl_trainer] key=value ...

Prints the plan, memory per GPU phase by phase, and hours with their assumptions. Ends with status 2 when settings cannot work, or
something is missing (GPUs, memory, data, keys); with --dry-run, which works on any machine, the latter is said and the status is 0.
Training files that are not here are planned with --assume-rows rows; GPUs that are not here with --gpu-gib of memory.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ekipl_rollout.errors import Lacking, SettingsError
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl import plan as plans
from recipe.ekipl.checks import check
from recipe.ekipl.compose import compose_config, make_consistent
from recipe.ekipl.data.splits import TASKS, splits_of
from recipe.ekipl.hardware import duration
from recipe.ekipl.hardware.machine import Machine, look
from recipe.ekipl.hardware.memory import GIB, KVCache, Phase, kv_cache, phases
from recipe.ekipl.hardware.model_shape import ModelShape, shape_of
from recipe.ekipl.hardware.needs import ASSUMED_GPU_GIB, Wanted, missing, wanted_by


def main(argv: Sequence[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m recipe.ekipl.hardware", description=__doc__, formatter_class=raw)
    parser.add_argument("--config-name", default="ekipl_trainer", help="default: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="plan it, whatever is missing here")
    parser.add_argument("--assume-rows", type=int, default=0, metavar="N", help="for training files that are not here")
    parser.add_argument("--assume-task", choices=TASKS, default=TASKS[0], help="of these rows (default: %(default)s)")
    parser.add_argument(
        "--gpu-gib",
        type=float,
        default=ASSUMED_GPU_GIB,
        metavar="GIB",
        help="of GPUs that are not here (default: %(default)g)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in Hydra's syntax")
    args = parser.parse_intermixed_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            problems = show(args, Path(folder))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    refused = [problem for problem in problems if not isinstance(problem, Lacking)]
    lacking = [problem for problem in problems if isinstance(problem, Lacking)]
    for title, found in (("cannot work", refused), ("missing", lacking)):
        if found:
            print(f"\n{title}:", *(f"  - {problem}" for problem in found), sep="\n", file=sys.stderr)
    return 2 if refused or (lacking and not args.dry_run) else 0


def show(args: argparse.Namespace, folder: Path) -> list[str]:
    """Prints what the run would be; returns its problems, what it misses here as `Lacking`. Raises SettingsError for what
    cannot be planned at all."""
    config = make_consistent(compose_config(args.config_name, args.overrides))
    problems: list[str] = [*stand_in(config, args.assume_rows, args.assume_task, folder)]
    try:
        settings = check(config)
    except SettingsError as error:
        problems += error.problems
        settings = EkiplSettings.from_config(OmegaConf.to_container(config.ekipl, resolve=True), check=False)
    shape = shape_of(str(config.actor_rollout_ref.model.path))
    machine = look(Path(config.ekipl.run_dir), ask_cluster=not args.dry_run)
    wanted = wanted_by(config, machine, args.gpu_gib)
    plan = plans.make_plan(config, settings)
    if any(Path(name).parent == folder for name in config.data.val_files):
        plan = replace(plan, validation_rows=0)
    print(plans.render(plan, settings))
    print(render(config, shape, wanted, machine))
    name = machine.gpus[0].name if machine.gpus else duration.ASSUMED_GPU
    took = duration.estimate(plan, settings, shape.parameters, wanted.gpus, name, config.data.max_response_length)
    print(
        f"  hours       about {took.hours:.0f} ({took.compute_h:.0f} on the GPUs, {took.experts_h:.0f} by the experts' rates)"
    )
    print(f"              assumed: {took.assumptions}")
    return problems + [*map(Lacking, missing(config, shape, wanted, machine))]


def stand_in(config: DictConfig, rows: int, task: str, folder: Path) -> list[Lacking]:
    """Puts a file of `rows` equal rows of `task` in the place of training files that are not here; says so."""
    keys = ("train_files", "val_files")
    absent = [name for key in keys for name in config.data[key] if not Path(name).is_file()]
    absent += [f"data.{key}" for key in keys if not config.data[key]]
    if not absent or not rows:
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    two_pictures = task == "spatial_transformation"
    row = {
        "data_source": splits_of(task)[0].data_source,
        "reward_model": {"style": "rule", "ground_truth": "change_color(0, red)" if two_pictures else "3"},
        "images": [{"image": "not here"}] * (1 + two_pictures),
    }
    for key, count in (("train_files", rows), ("val_files", 1)):
        if any(not Path(name).is_file() for name in config.data[key]) or not config.data[key]:
            pq.write_table(pa.Table.from_pylist([row] * count), folder / f"{key}.parquet")
            config.data[key] = [str(folder / f"{key}.parquet")]
    return [
        Lacking(
            f"{', '.join(absent)} not found; planned with {rows} training rows. Get them with bash scripts/prepare_data.sh, "
            "or convert a copy with python -m recipe.ekipl.data reason_rft."
        )
    ]


def render(config: DictConfig, shape: ModelShape, wanted: Wanted, machine: Machine) -> str:
    """Memory per GPU as a table."""
    whose = f"{machine.gpus[0].name}, " if machine.gpus else "assumed, "
    engine = config.actor_rollout_ref.actor.strategy
    title = (
        f"{shape.parameters / 1e9:.2f}e9 parameters, {engine}, {wanted.gpus} GPUs of {wanted.gpu_bytes / GIB:.0f} GiB"
    )
    lines = [f"  memory      {title} ({whose}estimated; docs/hardware.md)"]
    if machine.gpus or machine.hidden_gpus:
        lines.append(f"              here: {machine.seen}")
    lines += [_phase(phase, wanted.gpu_bytes) for phase in phases(config, shape, wanted.gpus, wanted.gpu_bytes)]
    return "\n".join([*lines, _cache(kv_cache(config, shape, wanted.gpu_bytes))])


def _phase(phase: Phase, gpu_bytes: float) -> str:
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in phase.parts.items() if size >= GIB / 20)
    mark = "  TOO MUCH" if phase.total > gpu_bytes else ""
    return f"              {phase.name:<18} {phase.total / GIB:5.1f} GiB = {parts}{mark}"


def _cache(cache: KVCache) -> str:
    return (
        f"              KV cache           {max(cache.bytes, 0) / GIB:5.1f} GiB an engine = {cache.tokens} tokens, "
        f"{cache.sequences} answers of full length at once"
    )


if __name__ == "__main__":
    sys.exit(main())
