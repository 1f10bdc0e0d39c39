"""Checks what can only be seen on a GPU: attention, verl's engine, and the cost of one EKIPL update.

    python -m recipe.ekipl.gpu                                        # 2B's shape on this machine's GPU, a few minutes
    python -m recipe.ekipl.gpu --size tiny --device cpu --repeats 2   # the same checks, small, anywhere

Weights are random: nothing is downloaded. 2B's shape needs 9 GB below --folder, about 80 GB on the GPU (verl and plain
are both there, in turns) and 40 GB of memory. Exit status: 0 all bounds were kept, 1 one was not, 2 it cannot run here.
The last line of stdout is one JSON object. Needs transformers 5.9.0 and verl 0.9.1; starts neither
Ray nor vLLM.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from recipe.ekipl import cpu
from recipe.ekipl.gpu import attention, engine, update
from recipe.ekipl.gpu.findings import Finding
from recipe.ekipl.gpu.sizes import SIZES, config_of, write

CHECKS = ("attention", "engine", "update")
PACKAGES = ("torch", "transformers", "verl", "tensordict", "flash_attn", "triton")


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    if problem := _problem(args):
        print(f"error: {problem}", file=sys.stderr)
        return 2
    facts = _facts(args)
    print("\n".join(f"  {name:12} {value}" for name, value in facts.items()), flush=True)
    with _model(args) as folder:
        findings, cost = _run(args, str(folder))
    failed = [finding for finding in findings if not finding.passed]
    print(json.dumps({**facts, "findings": [vars(finding) for finding in findings], **cost, "failed": len(failed)}))
    return 1 if failed else 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="2b", help="shape of the model and its rows (%(default)s)")
    parser.add_argument("--device", default=None, help="cuda or cpu (cuda where there is one)")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=CHECKS, help="which (all)")
    parser.add_argument(
        "--attention", choices=("sdpa", "flash_attention_2"), help="of checks 2 and 3 (flash-attn where installed)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed updates of each side (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and rows (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the model is written (a temporary folder)")
    args = parser.parse_args(argv)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    packed = args.device == "cuda" and find_spec("flash_attn") is not None
    args.attention = args.attention or ("flash_attention_2" if packed else "sdpa")
    return args


def _problem(args: argparse.Namespace) -> str | None:
    """Why it cannot run here, and what to do."""
    if args.device == "cuda" and not torch.cuda.is_available():
        return f"--device cuda, but torch {torch.__version__} sees no GPU. Use --size tiny --device cpu, or mend the driver."
    if args.device == "cuda" and cpu.wanted():
        return "VERL_PLATFORM=cpu is set, so verl would not use the GPU. Unset it, or say --device cpu."
    if args.device == "cpu" and not cpu.wanted():
        return "--device cpu on a machine with a GPU needs VERL_PLATFORM=cpu in the environment, or verl takes the GPU."
    if args.device == "cpu" and args.size != "tiny":
        return f"--size {args.size} would take hours on a CPU. Use --size tiny."
    if args.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        return "--attention flash_attention_2 needs the package flash-attn. Install it, or say --attention sdpa."
    if args.repeats < 1:
        return f"--repeats {args.repeats}: there must be 1 or more to take a median of."
    return None


def _facts(args: argparse.Namespace) -> dict[str, str]:
    name = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {os.cpu_count()} threads"
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": name,
        "python": platform.python_version(),
        "versions": ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        "size": args.size,
        "attention": args.attention,
        "seed": str(args.seed),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


@contextmanager
def _model(args: argparse.Namespace) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        yield write(config_of(SIZES[args.size]), Path(folder), args.seed, args.device)


def _run(args: argparse.Namespace, folder: str) -> tuple[list[Finding], dict]:
    given = (folder, args.size, args.seed, args.device)
    findings: list[Finding] = []
    cost: dict = {}
    if "attention" in args.checks:
        findings += _said("attention", attention.check(*given))
    if "engine" in args.checks:
        findings += _said("verl's engine", engine.check(*given, args.attention))
    if "update" in args.checks:
        print("one EKIPL update", flush=True)
        work, costs = update.measure(
            *given, args.attention, args.repeats, tell=lambda line: print(f"  {line}", flush=True)
        )
        print("\n".join(update.as_lines(work, costs)), flush=True)
        cost = {"work": vars(work), "costs": [c.as_dict() for c in costs], "verl_over_plain": update.ratios(costs)}
    return findings, cost


def _said(title: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    print(title, flush=True)
    for finding in findings:
        print(finding.as_line(), flush=True)
        yield finding


if __name__ == "__main__":
    sys.exit(main())
