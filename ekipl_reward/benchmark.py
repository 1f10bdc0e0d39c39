"""How fast are the rewards, and does their time grow in proportion to the length of a response?

    python -m ekipl_reward.benchmark             # about a minute; --quick takes a few seconds

Beside every number stands the same work done with the original's regular expressions, restated below in a few lines, on
the same inputs, in the same run. CPU time of one core; the helper process for expressions is not used by these inputs.
The last line is the same as JSON.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable

from ekipl_reward.score import compute_score

WORDS = (
    "the",
    "object",
    "in",
    "front",
    "of",
    "a",
    "large",
    "red",
    "sphere",
    "moves",
    "so",
    "that",
    "3",
    "cubes",
    "are",
    "left",
)
TRUTHS = {
    "visual_counting": "3",
    "structure_perception": "45",
    "spatial_transformation": "change_position(0, behind)\nchange_shape(1, sphere)\nchange_color(2, red)",
}
ANSWERS = {
    "visual_counting": ("3", "4", "3.0", "12", "three"),
    "structure_perception": ("45", "46.5", "45°", "B", "90 degrees"),
    "spatial_transformation": (
        "change_position(0, behind)\nchange_shape(1, sphere)\nchange_color(2, red)",
        "change_position(0, front)\nchange_shape(1, cube)",
        "change_size(3, small)\nchange_color(2, red)\nchange_color(1, blue)\nchange_material(0, glass)",
        "change_position(1, left)",
        "nothing changes",
    ),
}
SIZES = (1_000, 10_000, 100_000, 1_000_000)
GIVE_UP_SECONDS = 0.1  # the next size, ten times longer, of what took longer is not tried: it may be quadratic


def typical(task: str, count: int) -> list[str]:
    """Well-formed responses of 100 to 300 words of reasoning, with answers right, near and wrong."""
    rng = random.Random(0)
    reasoning = [" ".join(rng.choices(WORDS, k=rng.randint(100, 300))) for _ in range(count)]
    return [f"<think> {text} </think>\n<answer> {rng.choice(ANSWERS[task])} </answer>" for text in reasoning]


KINDS = (
    ("visual_counting", "reasoning"),
    ("visual_counting", "half tags"),
    ("structure_perception", "reasoning"),
    ("spatial_transformation", "reasoning"),
    ("spatial_transformation", "one word"),
)


def of_length(task: str, kind: str, length: int) -> str:
    """A response of about `length` characters: well-formed, full of blocks that are never closed, or one long word."""
    unit = {"reasoning": "so the cube is left. ", "half tags": "</think><answer>", "one word": "a"}[kind]
    text = unit * (length // len(unit))
    if kind == "one word":
        return text
    return f"<think>{text}</think><answer>{TRUTHS[task]}</answer>" if kind == "reasoning" else f"<think>{text}"


def restated(task: str, response: str, truth: str) -> float:
    """Format and accuracy by the patterns of Reason-RFT (tolerance and partial credit left out), written down plainly."""
    formatted = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", response, re.DOTALL) is not None
    found = re.search(r"<answer>(.*?)</answer>", response, re.DOTALL)
    answer = (found.group(1) if found else response).strip()
    if task != "spatial_transformation":
        return formatted + float(answer == truth)
    calls = re.compile(r"(\w+)\((\w+),\s*'?(\w+)'?\)")
    said, expected = calls.findall(answer), calls.findall(truth)
    if not said or not expected:
        return float(formatted)
    distinct = set(said)
    return formatted + len(distinct & set(expected)) / max(len(distinct), len(set(expected))) * len(distinct) / len(
        said
    )


JUDGES: dict[str, Callable[[str, str, str], object]] = {
    "paper": lambda task, response, truth: compute_score(task, response, truth),
    "released": lambda task, response, truth: compute_score(task, response, truth, rules="released"),
    "regex": restated,
}


def seconds_of(least: float, work: Callable[..., object], *args: object) -> float:
    """CPU seconds of work(*args): the best of as many calls as fit into `least` seconds, at least one."""
    best, spent = math.inf, 0.0
    while True:
        started = time.process_time()
        work(*args)
        took = max(time.process_time() - started, 1e-9)
        best, spent = min(best, took), spent + took
        if spent >= least:
            return best


def judge_all(judge: Callable[[str, str, str], object], task: str, responses: list[str]) -> None:
    truth = TRUTHS[task]
    for response in responses:
        judge(task, response, truth)


def speed(count: int, least: float) -> list[dict]:
    rows = []
    for task in TRUTHS:
        responses = typical(task, count)
        row: dict = {"task": task, "characters": sum(map(len, responses)) // count}
        for name, judge in JUDGES.items():
            row[name] = round(count / seconds_of(least, judge_all, judge, task, responses))
        rows.append(row)
    return rows


def growth(least: float) -> list[dict]:
    """CPU milliseconds by length; None where a size was not tried."""
    rows = []
    for task, kind in KINDS:
        for name, judge in JUDGES.items():
            took: list[float] = []
            for size in SIZES:
                if not took or took[-1] < GIVE_UP_SECONDS:
                    took.append(seconds_of(least, judge, task, of_length(task, kind, size), TRUTHS[task]))
            decades = min(2, len(took) - 1)  # the last ones: short responses cost mostly the call itself
            exponent = math.log10(took[-1] / took[-1 - decades]) / decades
            ms: list[float | None] = [round(1000 * t, 4) for t in took]
            ms += [None] * (len(SIZES) - len(took))
            rows.append({"task": task, "kind": kind, "judge": name, "ms": ms, "exponent": round(exponent, 2)})
    return rows


def speed_lines(rows: list[dict]) -> list[str]:
    lines = [
        f"{'':24}{'characters':>11}" + "".join(f"{name:>10}" for name in JUDGES) + "   paper/regex  released/regex"
    ]
    for row in rows:
        speeds = "".join(f"{row[name]:10,}" for name in JUDGES)
        ratios = f"{row['paper'] / row['regex']:14.2f}{row['released'] / row['regex']:16.2f}"
        lines.append(f"{row['task']:24}{row['characters']:11}{speeds}{ratios}")
    return lines


def growth_lines(rows: list[dict]) -> list[str]:
    lines = [" " * 46 + "".join(f"{size:>12,}" for size in SIZES) + "  exponent"]
    for row in rows:
        times = "".join(f"{'-' if ms is None else format(ms, '.3f'):>12}" for ms in row["ms"])
        lines.append(f"{row['task']:24}{row['kind']:12}{row['judge']:10}{times}{row['exponent']:10.2f}")
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ekipl_reward.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: a few seconds, rougher numbers")
    args = parser.parse_args(argv)
    count, least = (200, 0.05) if args.quick else (2000, 1.0)

    fast, slow = speed(count, least), growth(least / 5)
    print("\n".join(["responses per second and core, typical answers", *speed_lines(fast)]))
    print("\n".join(["", "CPU milliseconds by length; exponent 1 is linear, 2 is quadratic", *growth_lines(slow)]))
    print(json.dumps({"speed": fast, "growth": slow}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
