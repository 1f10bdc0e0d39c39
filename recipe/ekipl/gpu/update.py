"""Check 3: what one EKIPL update costs in verl's actor, beside the same update in plain transformers.

bf16, the same rows and micro-batches, with and without gradient checkpointing; the two sides take turns and each is
warmed up first. `log-probs` is the forward pass that a step makes once for the old and once for the reference ones.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from recipe.ekipl.gpu.engine import LEARNING_RATE, noisy
from recipe.ekipl.gpu.flops import count
from recipe.ekipl.gpu.on_verl import OnVerl
from recipe.ekipl.gpu.plain import Plain
from recipe.ekipl.gpu.rows import draw
from recipe.ekipl.gpu.side import Remote
from recipe.ekipl.gpu.sizes import SIZES, config_of


@dataclass(frozen=True)
class Work:
    """What one pass over the rows is."""

    rows: int
    tokens: int
    """Prompt, picture and response, without padding."""

    forward_flops: float
    update_flops: float
    peak_flops: float | None
    """FLOP/s of the device in bf16 by its data sheet; None on a CPU."""


@dataclass(frozen=True)
class Cost:
    """Of one kind of pass on one side."""

    side: str
    what: str
    checkpointing: bool
    seconds: list[float]
    peak_gib: float
    tokens_per_s: float
    mfu: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def as_dict(self) -> dict:
        return {**asdict(self), "median_s": self.median}


def work_of(size: str, seed: int, peak_flops: float | None) -> Work:
    rows = draw(SIZES[size], seed)
    pictures = [int(row.grid.prod()) for row in rows]
    flops = count(config_of(SIZES[size]), [row.length for row in rows], pictures)
    return Work(len(rows), sum(row.length for row in rows), flops.forward, flops.update, peak_flops)


def measure(
    folder: str, size: str, seed: int, device: str, attention: str, repeats: int, tell: Callable[[str], None]
) -> tuple[Work, list[Cost]]:
    arguments = (folder, size, seed, device, "bf16", attention, LEARNING_RATE)
    with Remote(Plain, *arguments) as plain, Remote(OnVerl, *arguments) as verl:
        work = work_of(size, seed, verl.peak_flops())
        log_probs = plain.log_probs()
        given = (noisy(log_probs, seed), noisy(log_probs, seed + 1), "all")
        costs: list[Cost] = []
        for checkpointing in (False, True):
            tell(f"update, gradient checkpointing {'on' if checkpointing else 'off'}, {repeats} times each, in turns")
            for side in (plain, verl):
                side.checkpointing(checkpointing)
            costs += _costs({"plain": plain, "verl": verl}, work, checkpointing, given, repeats)
    return work, costs


def _costs(sides: dict[str, Remote], work: Work, checkpointing: bool, given: tuple, repeats: int) -> Iterator[Cost]:
    passes = {"update": (given, work.update_flops)}
    if not checkpointing:  # a forward pass without gradients does not know of it
        passes["log_probs"] = ((), work.forward_flops)
    for what, (arguments, flops) in passes.items():
        runs: dict[str, list] = {name: [] for name in sides}
        for _ in range(1 + repeats):
            for name, side in sides.items():
                runs[name].append(side.timed(what, *arguments))
        for name, done in runs.items():
            seconds = [second for second, _, _ in done[1:]]
            median = statistics.median(seconds)
            mfu = flops / median / work.peak_flops if work.peak_flops else None
            peak = max(gib for _, gib, _ in done[1:])
            yield Cost(name, what, checkpointing, seconds, peak, work.tokens / median, mfu)


def as_lines(work: Work, costs: list[Cost]) -> list[str]:
    lines = [
        f"  {work.rows} rows, {work.tokens} tokens; {work.update_flops / 1e12:.3g} TFLOP an update (3 x forward, "
        f"recomputation not counted), peak {_peak(work)}",
        f"  {'':10}{'side':7}{'checkpointing':15}{'median s':>10}{'min - max':>18}{'tokens/s':>12}{'MFU':>8}{'peak GiB':>10}",
    ]
    for cost in costs:
        mfu = "-" if cost.mfu is None else f"{cost.mfu:.1%}"
        spread = f"{min(cost.seconds):.3f} - {max(cost.seconds):.3f}"
        on = "on" if cost.checkpointing else "off" if cost.what == "update" else "-"
        lines.append(
            f"  {cost.what:10}{cost.side:7}{on:15}{cost.median:10.3f}{spread:>18}"
            f"{cost.tokens_per_s:12.0f}{mfu:>8}{cost.peak_gib:10.2f}"
        )
    return [*lines, *(f"  {name}: verl / plain = {ratio:.2f}" for name, ratio in ratios(costs).items())]


def ratios(costs: list[Cost]) -> dict[str, float]:
    """verl's median over plain's, for each kind of pass."""
    medians = {(cost.what, cost.checkpointing, cost.side): cost.median for cost in costs}
    names = {True: ", checkpointing on", False: ""}
    return {
        what + names[on]: medians[what, on, "verl"] / medians[what, on, "plain"]
        for what, on, side in medians
        if side == "plain"
    }


def _peak(work: Work) -> str:
    return "unknown" if work.peak_flops is None else f"{work.peak_flops / 1e12:.0f} TFLOP/s (bf16, dense, data sheet)"
