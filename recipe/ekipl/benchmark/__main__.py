"""Stock verl GRPO and EKIPL with the same G on the same rows, side by side in one run.

    python -m recipe.ekipl.benchmark                     # six blocks: about ten minutes on two idle cores
    python -m recipe.ekipl.benchmark --short             # two blocks: does it work?
    python -m recipe.ekipl.benchmark --model Qwen/Qwen2-VL-2B-Instruct --config-name ekipl_trainer --fast-s 2 --slow-s 60 \\
        data.max_response_length=512 trainer.n_gpus_per_node=8

One training whose steps take turns: verl's own way, EKIPL with experts that answer before the rollout is done, with the
same answers from the record, and with experts that answer after it. The rows are drawn, the experts are a server on
loopback, the model is a tiny random one unless --model names another; what is measured is time, bytes and work, not
learning. Finished blocks are kept in --out: the same command again does the ones that are missing. The last line of the
output is one JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ekipl_rollout.errors import SettingsError
from recipe.ekipl import cpu, processes
from recipe.ekipl.benchmark.arms import ARMS, expert_blocks, make_schedule
from recipe.ekipl.benchmark.table import complete_blocks, read_steps, render, summarize
from recipe.ekipl.checks import check
from recipe.ekipl.compose import compose_config, make_consistent
from recipe.ekipl.cpu.warm_start import warm_python
from recipe.ekipl.progress import Progress, quiet
from recipe.ekipl.run_files import RunFiles
from recipe.ekipl.tiny.serving import ServerError, serving

BLOCKS, SHORT_BLOCKS, MOST_BLOCKS = 6, 2, 64
TASK = "visual_counting"
ON_VERL = "recipe.ekipl.benchmark.on_verl"
SETTINGS = [
    # the two ways of asking an estimator and a sampler must not differ: the paper's baseline, which is verl's GRPO
    *("ekipl.advantage.baseline=selected", "ekipl.advantage.std=selected"),
    *(
        "ekipl.seeded_policy=false",
        "ekipl.keep_groups=false",
        "ekipl.record.mode=refresh",
        "ekipl.expert_timeout_s=600",
    ),
    # as long as the drawn experts' answers, so that rows of all arms are about equally long; longer ones are cut
    *("data.max_response_length=24", "ekipl.too_long=cut", "data.shuffle=false"),
    *(
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
        "trainer.logger=[console,file]",
    ),
    # rows of a block come again in each arm: nobody may profit from the arm before
    "actor_rollout_ref.rollout.enable_prefix_caching=false",
    "++actor_rollout_ref.rollout.engine_kwargs.vllm.mm_processor_cache_gb=0",
]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.ekipl.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"), help="folder (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="measured steps of each arm (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help=f"{SHORT_BLOCKS} blocks")
    parser.add_argument("--fresh", action="store_true", help="throw earlier blocks in --out away")
    parser.add_argument("--model", help="folder or name; default: a tiny random Qwen2-VL")
    parser.add_argument(
        "--config-name", default="ekipl_tiny", help="file in recipe/ekipl/config (default: %(default)s)"
    )
    parser.add_argument(
        "--fast-s", type=float, default=0.2, help="mean seconds of the fast experts (default: %(default)s)"
    )
    parser.add_argument(
        "--slow-s", type=float, default=6.0, help="mean seconds of the slow experts (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="show what verl, vLLM and Ray print")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in Hydra's syntax")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.out = args.out.resolve()
    wanted = SHORT_BLOCKS if args.short else args.blocks
    if not 1 <= wanted <= MOST_BLOCKS:
        print(f"error: --blocks={wanted} must be 1 to {MOST_BLOCKS}.", file=sys.stderr)
        return 2
    if cpu.wanted():
        os.environ.update(cpu.environment())
    if args.fresh:
        shutil.rmtree(args.out, ignore_errors=True)
    before, started = busy_cores(), time.monotonic()
    try:
        with processes.only_driver(args.out):
            prepare(args)
            missing = wanted - len(complete_blocks(read_steps(args.out)))
            if missing > 0:
                measure(args, missing)
    except (SettingsError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. The same command does the blocks that are missing.", file=sys.stderr)
        return 130
    return report(args, before, time.monotonic() - started)


def prepare(args: argparse.Namespace) -> None:
    """World, rows and model in --out, once."""
    from recipe.ekipl.data.reason_rft import convert
    from recipe.ekipl.data.synthetic.write import write_world
    from recipe.ekipl.tiny.model import build

    if (args.out / "rows").exists():
        return
    with quiet(args.out / "prepare.log", args.verbose):
        write_world(args.out / "world", [TASK], train=1024, base=0, test=4, seed=args.seed)
        convert(args.out / "world", args.out / "rows.partial", [TASK], "plain")
        if args.model is None:
            build(args.out / "model", seed=args.seed)
    (args.out / "rows.partial").rename(args.out / "rows")


def measure(args: argparse.Namespace, blocks: int) -> None:
    """One training: a warm-up block, then `blocks` measured ones."""
    from recipe.ekipl.train import train

    number = len(list(args.out.glob("attempt-*.schedule.json"))) + 1
    at = args.out / f"attempt-{number:04d}"
    schedule = make_schedule(1 + blocks, args.seed + number)
    server = ("recipe.ekipl.tiny.demo_experts", "--data", str(args.out / "world"), *personas(args))
    with (
        quiet(args.out / "train.log", args.verbose),
        serving(*server, ready=args.out / "experts.url", log=args.out / "experts.log") as url,
    ):
        config = configure(args, at, schedule, url)
        files, metrics = RunFiles(args.out), Path(f"{at}.metrics.jsonl")
        metrics.touch()
        Path(f"{at}.schedule.json").write_text(json.dumps(schedule))
        with warm_python({processes.MARK: str(args.out)}) as python, Bar(files, metrics, 0, len(schedule)):
            try:
                train(config, metrics, python)
            except Exception as error:
                raise SettingsError(
                    f"the training failed: {error}. Everything that was printed: {args.out}/train.log"
                ) from error


class Bar(Progress):
    """Every step counts, whatever its arm."""

    def _show(self, row: dict[str, Any]) -> None:
        if not self._training:  # a fresh bar, so that the remaining time is not guessed from the start-up
            self._bar.close()
            self._bar, self._training = self._new_bar("measuring"), True
        self._bar.update(row["step"] - self._bar.n)


def configure(args: argparse.Namespace, at: Path, schedule: list[str], url: str) -> DictConfig:
    """The config of a training whose steps follow `schedule`. Raises SettingsError for what cannot work."""
    rows = args.out / "rows" / TASK
    config = compose_config(
        args.config_name,
        [
            *("experts=none", *SETTINGS, f"ekipl.run_dir={args.out}", f"trainer.total_training_steps={len(schedule)}"),
            f"actor_rollout_ref.model.path={args.model or args.out / 'model'}",
            f"data.train_files={at}.parquet",
            f"data.val_files={rows / 'clevr_math.rl.parquet'}",
            *args.overrides,
        ],
    )
    repeat_rows(
        rows / "train.rl.parquet", Path(f"{at}.parquet"), config.data.train_batch_size, len(schedule) // len(ARMS)
    )
    with open_dict(config):
        config.ekipl.experts = expert_blocks(url)
    make_consistent(config)
    check(config)  # before worker and sampler become the benchmark's, which are not the ones that it asks for
    with open_dict(config):
        config.benchmark = {"schedule": schedule, "counts": f"{at}.counts.jsonl"}
        config.actor_rollout_ref.rollout.agent.agent_loop_manager_class = f"{ON_VERL}.BenchmarkManager"
        sampler = config.trainer.v1.sampler
        sampler.custom_sampler = {"path": f"pkg://{ON_VERL}", "name": "BenchmarkBuffer"}
        sampler.sampler_kwargs.schedule = schedule
    return config


def repeat_rows(source: Path, target: Path, batch: int, blocks: int) -> None:
    """A batch of its own for each block, once for each arm."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    if batch * blocks > len(table):
        raise SettingsError(
            f"data.train_batch_size={batch} times {blocks} blocks is more than the {len(table)} drawn rows."
        )
    batches = [table.slice(block * batch, batch) for block in range(blocks) for _ in ARMS]
    pq.write_table(pa.concat_tables(batches), target)


def personas(args: argparse.Namespace) -> list[str]:
    """The experts of all arms, as options of one server."""
    options = []
    for speed, seconds in (("fast", args.fast_s), ("slow", args.slow_s)):
        options += ["--expert", f"{speed}-a:voice=1,skill=0.42,latency={seconds}"]
        options += ["--expert", f"{speed}-b:voice=2,skill=0.26,latency={seconds}"]
    return options


def busy_cores() -> float:
    """How many cores other programs keep busy, over two seconds; the load average remembers what has ended."""
    import psutil

    return psutil.cpu_percent(interval=2.0) / 100 * (psutil.cpu_count() or 1)


def report(args: argparse.Namespace, busy_before: float, seconds: float) -> int:
    """The table, and one JSON object as the last line."""
    summary = summarize(read_steps(args.out))
    if not summary["blocks"]:
        print(f"error: no block was finished; see {args.out}/train.log.", file=sys.stderr)
        return 1
    about = {
        "commit": commit(),
        "cores": os.cpu_count(),
        "busy_cores_before": round(busy_before, 2),
        "seconds": round(seconds, 1),
        "peak_memory_gib": RunFiles(args.out).peak_memory(),
        "fast_s": args.fast_s,
        "slow_s": args.slow_s,
        "overrides": args.overrides,
    }
    print(render(summary))
    print(
        f"{summary['blocks']} blocks, {about['cores']} cores, {busy_before:.1f} busy before, commit {about['commit']}"
    )
    if busy_before > 0.2:
        print("warning: the machine was busy when this began; these are no numbers to quote.", file=sys.stderr)
    line = json.dumps(about | summary)
    (args.out / "benchmark.json").write_text(line + "\n")
    print(line)
    return 0


def commit() -> str:
    """Of the code that ran; empty outside of a repository."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return asked.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
