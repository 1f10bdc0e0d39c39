"""START HERE: compose the config, check it, then verl's own training with our worker in it.

    python -m recipe.ekipl.train [--config-name ekipl_trainer] [--dry-run] [key=value ...]

    --dry-run    print the plan (model, rows, N, M, G, steps, requests, dollars) and exit
    key=value    any setting of verl or of the ekipl: block, in Hydra's syntax; experts=<name> chooses config/experts/

The same command again goes on from the last checkpoint. The method itself is in ekipl_rollout/ask.py (ask),
ekipl_reward/ (judge) and ekipl_rollout/group_filter.py (keep); verl learns.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, open_dict

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl import cpu, plan, processes
from recipe.ekipl.checks import check_for_plan
from recipe.ekipl.compose import compose_config, make_consistent, other_method, save_resolved
from recipe.ekipl.cpu.warm_start import warm_python
from recipe.ekipl.processes import only_driver
from recipe.ekipl.progress import Progress, quiet
from recipe.ekipl.run_files import RunFiles


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config-name", default="ekipl_trainer", help="file in recipe/ekipl/config (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    parser.add_argument(
        "--verbose", action="store_true", help="show what verl, vLLM and Ray print, and no progress bar"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in Hydra's syntax")
    args = parser.parse_intermixed_args(argv)  # run_ekipl_tiny.sh puts what the user adds behind its own overrides
    try:
        config = compose_config(args.config_name, args.overrides)
        if config.trainer.device == "cpu":  # not for want of a GPU here: the head of a cluster needs none
            os.environ.update(cpu.environment())
        config = make_consistent(config)
        settings, lacking = checked(config)
        if lacking and not args.dry_run:
            raise SettingsError(*lacking)
        planned = plan.make_plan(config, settings)
        print(plan.render(planned, settings), flush=True)
        if args.dry_run:
            print(memory(config))
            print(*(f"  missing     {problem}" for problem in lacking), sep="\n", end="\n" * bool(lacking))
            return 0
        with only_driver(Path(config.ekipl.run_dir)):
            return run(config, planned, args.verbose)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before or after the training, which says more
        return 130


def checked(config: DictConfig) -> tuple[EkiplSettings, list[str]]:
    """The settings, and what this machine lacks. Raises SettingsError, with all of that, for settings that cannot work."""
    from recipe.ekipl.hardware.machine import look
    from recipe.ekipl.hardware.needs import few_gpus, wanted_by

    few: list[str] = []
    if not cpu.is_selected():
        machine = look(Path(config.ekipl.run_dir), ask_cluster=True)
        if machine.gpus or cpu.wanted():  # AMD's and Ascend's are not counted
            few = list(few_gpus(wanted_by(config, machine), machine))
    try:
        settings, lacking = check_for_plan(config)
    except SettingsError as error:
        raise SettingsError(*error.problems, *few) from None
    return settings, [*lacking, *few]


def memory(config: DictConfig) -> str:
    """What the run needs, for its plan; recipe.ekipl.hardware has more, and asks for what is there."""
    from recipe.ekipl.hardware.__main__ import render
    from recipe.ekipl.hardware.machine import look
    from recipe.ekipl.hardware.model_shape import shape_of
    from recipe.ekipl.hardware.needs import wanted_by

    if cpu.is_selected():
        return "  memory      5 GiB with the tiny model, most of it libraries of ten processes (measured)"
    machine = look(Path(config.ekipl.run_dir), ask_cluster=False)
    try:
        return render(config, shape_of(str(config.actor_rollout_ref.model.path)), wanted_by(config, machine), machine)
    except SettingsError as error:
        return f"  memory      unknown: {error}"


def run(config: DictConfig, planned: plan.Plan, verbose: bool) -> int:
    """Trains, then reports. Ctrl-C, SIGTERM and a kill lose nothing but the steps since the last checkpoint."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # job schedulers stop with it: end as with Ctrl-C
    files = RunFiles(config.ekipl.run_dir)
    if files.last_checkpoint() and (problems := other_method(files.root / "config.yaml", config)):
        raise SettingsError(*problems)
    attempt, start = files.start_attempt()
    save_resolved(config, files.root / "config.yaml")
    plan.save(planned, files.root / "plan.json")
    if start < planned.steps:
        if start:
            print(f"  going on   from the checkpoint of step {start}", flush=True)
            config.trainer.val_before_train = False  # it is in the metrics of the first attempt
        try:
            with (
                quiet(files.log, verbose),
                warm_python({processes.MARK: config.ekipl.run_dir}) as python,
                Progress(files, attempt, start, planned.steps, shown=not verbose),
            ):
                train(config, attempt, python)
        except KeyboardInterrupt:
            print(f"\nstopped. The same command goes on from step {files.last_checkpoint()}.", file=sys.stderr)
            return 130
        except Exception as error:
            where = "" if verbose else f"\nEverything that was printed is in {files.log}."
            if "timed out during startup" in str(error):  # Ray gives its processes 30 s (ray/_private/node.py)
                busy = f"a load of {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
                where = f"\nThe machine is too busy for Ray to start ({busy}). The same command goes on once it is less so.{where}"
            print(f"\ntraining failed: {error}{where}", file=sys.stderr)
            return 1
        finally:
            files.write_metrics()
    return report(files, planned)


def train(config: DictConfig, attempt: Path, python: str | None) -> None:
    """verl's own main, from its checks on (verl/trainer/main_ppo.py: main). `python`: the workers' interpreter."""
    import ray
    from verl.trainer.main_ppo import auto_set_device, need_critic, need_reference_policy, run_ppo, validate_config

    from ekipl_rollout.on_verl.task_runner import EkiplTaskRunner

    with open_dict(config):  # names and paths only: keys stay in the environment of the nodes
        config.ray_kwargs.ray_init.runtime_env.env_vars.update(
            VERL_FILE_LOGGER_PATH=str(attempt),
            TENSORBOARD_DIR=str(Path(config.ekipl.run_dir) / "tensorboard"),
            **{processes.MARK: config.ekipl.run_dir},
        )
        if python:
            config.ray_kwargs.ray_init.runtime_env.py_executable = python
    auto_set_device(config)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    try:
        run_ppo(config, task_runner_class=ray.remote(EkiplTaskRunner))
    finally:
        ray.shutdown()


def report(files: RunFiles, planned: plan.Plan) -> int:
    """report.html, and one JSON object as the last line of stdout."""
    from recipe.ekipl.measure.report import write_report
    from recipe.ekipl.measure.summary import summarize_run

    started = time.time()
    steps = files.write_metrics()
    summary = summarize_run(files, steps)
    try:
        write_report(files, planned, steps, summary)
        print(f"  report      {files.report} ({time.time() - started:.1f} s)")
    except Exception as error:  # a page must not cost a run its result
        print(f"  no report   {type(error).__name__}: {error}. The numbers are in {files.metrics}.", file=sys.stderr)
    print(f"  look closer python -m recipe.ekipl.view {files.root}")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
