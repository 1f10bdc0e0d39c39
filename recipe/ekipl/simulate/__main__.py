"""What is exposed, what it costs, and which setting is the bottleneck, for so many GPUs and such limits.

    python -m recipe.ekipl.simulate --gpus 8,64,512 --requests-per-minute 500 --latency-s 3 --latency-p95-s 8
    python -m recipe.ekipl.simulate --run runs/my-run --gpus 8,512 --requests-per-minute 500
    python -m recipe.ekipl.simulate --check runs/benchmark          # how far is the model off?

Weak scaling is assumed: every GPU brings --prompts-per-gpu rows, so that rollout and update take as long on 512 GPUs as on 8 and
only what all share grows, the requests to the experts. Rates, backoff, breaker and retries are the run's own code on a
simulated clock. Defaults are assumptions, not measurements; --run takes rollout, update and latency from a run's metrics.
The last line of the output is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import AskSettings
from recipe.ekipl.measure.curves import COLORS
from recipe.ekipl.simulate.calibrate import Check, from_benchmark, from_run
from recipe.ekipl.simulate.model import Outlook, look
from recipe.ekipl.simulate.world import World


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _limits(text: str) -> list[float | None]:
    return [None if word == "none" else float(word) for word in text.split(",")]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.ekipl.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpus", type=_numbers, default=[8, 64, 512], metavar="N,N,...", help="default: 8,64,512")
    parser.add_argument("--prompts-per-gpu", type=int, default=8, help="rows of a step (default: %(default)s)")
    parser.add_argument("--experts", type=int, default=2, help="M (default: %(default)s)")
    parser.add_argument("--latency-s", type=float, default=2.0, help="median of a request (default: %(default)s)")
    parser.add_argument("--latency-p95-s", type=float, default=5.0, help="95 %% are faster (default: %(default)s)")
    parser.add_argument("--failures", type=float, default=0.01, help="share of requests (default: %(default)s)")
    parser.add_argument(
        "--requests-per-minute", type=_limits, default=[None], metavar="X,X,...", help="of each expert; none: no limit"
    )
    parser.add_argument("--max-in-flight", type=int, default=16, help="of each expert (default: %(default)s)")
    parser.add_argument("--dollars-per-request", type=float, default=0.0)
    parser.add_argument("--timeout-s", type=float, default=60.0, help="ekipl.expert_timeout_s (default: %(default)s)")
    parser.add_argument("--wait-s", type=float, help="ekipl.ask.wait_s")
    parser.add_argument("--rollout-s", type=float, default=30.0, help="of a step (default: %(default)s)")
    parser.add_argument("--rest-s", type=float, default=30.0, help="log-probs, update, weights (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="simulated steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, help="run folder that rollout, rest and latency are taken from")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="predict the live arms of a benchmark, and end")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="length of a step and answers in time over GPUs, a curve for each limit",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        if args.check:
            return check(args.check)
        world = make_world(args)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {
        (gpus, limit): look(
            replace(world, prompts=gpus * args.prompts_per_gpu, requests_per_minute=limit), args.steps, args.seed
        )
        for limit in args.requests_per_minute
        for gpus in args.gpus
    }
    print(render(found))
    if args.plot:
        plot(found, args.plot)
        print(f"written: {args.plot}")
    rows = [{"gpus": gpus, "requests_per_minute": limit, **asdict(seen)} for (gpus, limit), seen in found.items()]
    print(json.dumps({"world": asdict(world), "outlook": rows}))
    return 0


def make_world(args: argparse.Namespace) -> World:
    """Raises SettingsError with every problem at once."""
    world = World(
        prompts=args.prompts_per_gpu,
        experts=args.experts,
        latency_s=args.latency_s,
        latency_p95_s=args.latency_p95_s,
        failures=args.failures,
        max_in_flight=args.max_in_flight,
        dollars_per_request=args.dollars_per_request,
        timeout_s=args.timeout_s,
        ask=AskSettings(wait_s=args.wait_s),
        rollout_s=args.rollout_s,
        rest_s=args.rest_s,
    )
    if args.run:
        world = from_run(args.run, world)
    limits = [replace(world, requests_per_minute=limit) for limit in args.requests_per_minute]
    problems = list(dict.fromkeys(problem for limited in limits for problem in limited.problems()))
    problems += [f"--gpus {gpus} must be 1 or more." for gpus in args.gpus if gpus < 1]
    if args.steps < 1:
        problems.append(f"--steps {args.steps} must be 1 or more.")
    if problems:
        raise SettingsError(*problems)
    return world


def render(found: dict[tuple[int, float | None], Outlook]) -> str:
    heads = ("GPUs", "requests/min", "s a step", "exposed s", "exposed", "answered", "$ a step", "bottleneck")
    rows = [heads] + [
        (
            str(gpus),
            "no limit" if limit is None else f"{limit:g}",
            f"{seen.step_s:.1f}",
            f"{seen.exposed_s:.1f}",
            f"{seen.exposed_s / seen.step_s:.0%}",
            f"{seen.answered:.0%}",
            f"{seen.dollars:.2f}",
            seen.bottleneck,
        )
        for (gpus, limit), seen in found.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def plot(found: dict[tuple[int, float | None], Outlook], path: Path) -> None:
    """Length of a step and share of answers over GPUs, as PNG, SVG or PDF by the file's ending."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    canvas, (above, below) = plt.subplots(2, 1, figsize=(5, 4.5), sharex=True, constrained_layout=True)
    ticks = sorted({gpus for gpus, _ in found})
    for number, limit in enumerate(dict.fromkeys(limit for _, limit in found)):
        style = {"marker": "os^Dv"[number % 5], "color": COLORS[number % len(COLORS)], "markerfacecolor": "none"}
        label = "no limit" if limit is None else f"{limit:g} requests/min"
        seen = [found[gpus, limit] for gpus in ticks]
        above.plot(ticks, [one.step_s for one in seen], label=label, **style)
        below.plot(ticks, [one.answered for one in seen], **style)
    above.set(ylabel="seconds a step", ylim=(0, None))
    below.set(xscale="log", xlabel="GPUs", ylabel="answers in time", ylim=(0, 1.05))
    below.set_xticks(ticks, labels=[str(gpus) for gpus in ticks])
    below.minorticks_off()
    above.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=200)
    plt.close(canvas)


def check(folder: Path) -> int:
    """The model beside a benchmark."""
    _, checks = from_benchmark(folder)
    print("arm     s a step: predicted  measured  error    exposed s: predicted  measured")
    for seen in checks:
        print(_line(seen))
    print(json.dumps({"checks": [asdict(seen) | {"error": seen.error} for seen in checks]}))
    return 0


def _line(seen: Check) -> str:
    return (
        f"{seen.arm:<6}{seen.predicted_s:>21.2f}{seen.measured_s:>10.2f}{seen.error:>7.1%}"
        f"{seen.predicted_exposed_s:>24.2f}{seen.measured_exposed_s:>10.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
