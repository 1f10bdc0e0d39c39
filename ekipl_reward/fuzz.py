"""Hostile responses against every judge: does any of them raise, leave the range, or take long?

    python -m ekipl_reward.fuzz                      # 200,000 responses and the 1 MB ones, paper rules
    python -m ekipl_reward.fuzz --rules released     # the same against Reason-RFT's rules

Each response is made from a seed alone, so that a failure can be repeated: --seed N --count 1.
"""

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from ekipl_reward.extract import TAGS
from ekipl_reward.options import read_options
from ekipl_reward.score import compute_score

TRUTHS = {
    "visual_counting": ("3", "0", "-7", "1,200", "1/2"),
    "structure_perception": ("45", "0", "B", "5\\sqrt{2}", "12π", "3/4", "-0.5", "x+1", "nan"),
    "spatial_transformation": (
        "change_position(0, behind)",
        "change_color(0, red)\nchange_color(1, red)\nchange_shape(0, cube)\nchange_color(0, red)",
    ),
}
"""Ground truths, each a usable one, that every response is judged against in turn."""

PIECES = (
    *TAGS, "<answer", "</answer", "< think >", "<ANSWER>", "</THINK>", "<summary>", "<|im_end|>",
    "3", "45", "-7", "+3", "3.0", "03", "3.", "1,200", "1,2", "1_000", "1e3", "1e999999999", "9^9^9^9", "2**10**10", "nan", "inf",
    "-infinity", "0x10", "3/0", "6/2", "75%", "45°", "45 cm", "x = 45", "３", "٣", "４５", "−45", "½", "²", "9" * 70, "0" * 400, "1" * 5000,
    "A", "(B)", "b.", "Option C", "A or B", "\\text{A}", "$3$", "$$", "$", "\\boxed{3}", "\\boxed{", "\\frac{1}{0}", "\\frac{6}{2}",
    "\\sqrt{2}", "5\\sqrt{2}", "\\sqrt", "12\\pi", "π", "√2", "\\int_0^1 x dx", "100!", "99999!!", "\\sum_{i=1}^{10^9} i", "{", "}", "\\",
    "change_position(0, behind)", "change_color(0, red)", "change_color(1,'red')", "change_shape(0,\ncube)", 'change_size(0, "small")',
    "change_size( 0 , small )", "change_position(0, Front-Left)", "change_", "f(a, b)", "change_color(", "(", ")", ",", "'", "x.change_shape(1, cube)",
    "The answer is ", "Answer: ", "final answer is ", " and ", " or ", "[", "]", "*", "**", "`", ";", "=", ":", "\n", "\r\n", "\t", " ", "\u00a0",
    "\u200b", "\u202e", "\u200f", "\ufeff", "\u2028", "\x00", "\x1b[0m", "\ud83d", "\udc00", "\U0001f600", "e\u0301", "İ", "ß", "很长的推理。", "ﷺ",
)  # fmt: skip


def hostile_response(seed: int) -> str:
    """One response: pieces in any order, well-formed responses with a hostile answer, repeats, noise."""
    rng = random.Random(seed)
    pieces = [rng.choice(PIECES) for _ in range(rng.randint(0, 12))]
    kind = rng.random()
    if kind < 0.45:
        return f"<think>{''.join(pieces[:3])}</think>{rng.choice(['', ' ', chr(10), ' so '])}<answer>{''.join(pieces[3:])}</answer>"
    if kind < 0.6:
        return rng.choice(PIECES) * rng.randint(1, 300)
    if kind < 0.7:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 60)))
    return rng.choice(["", " "]).join(pieces)


def megabyte_responses() -> dict[str, str]:
    """Responses of about 10^6 characters, each of which costs a careless parser quadratic time or worse."""
    n = 10**6
    units = {
        "think tags": "<think>", "closing think tags": "</think>", "answer tags": "<answer>", "half tags": "<answer", "angle brackets": "<",
        "opening brackets": "(", "closing brackets": ")", "square brackets": "[", "braces": "{", "nested pairs": "[(", "one word": "a",
        "words": "word ", "blanks": " ", "newlines": "\n", "digits": "9", "powers": "9^", "dollars": "$", "boxed": "\\boxed{", "backslashes": "\\",
        "calls": "change_size(0, red) ", "half calls": "change_color(0,", "calls of others": "f(a,b)", "ends of calls": ",b)", "quotes": "'",
        "answers": "<answer>3</answer>", "whole responses": "<think>a</think><answer>3</answer>", "think then blanks": "</think> ",
        "surrogates": "\ud83d", "NULs": "\x00", "right-to-left marks": "\u200f", "full-width digits": "３",
    }  # fmt: skip
    texts = {name: unit * (n // len(unit)) for name, unit in units.items()}
    inside = {f"{name} in tags": f"<think>a</think><answer>{text}</answer>" for name, text in texts.items()}
    distinct = "".join(f"change_size(a{i}, b{i})" for i in range(n // 25))
    return {**texts, **inside, "distinct calls": distinct, "nested": "[" * (n // 2) + "]" * (n // 2)}


@dataclass
class Findings:
    """What a run of the fuzzer saw."""

    judged: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    """CPU time of this process: what else the machine does is no finding. The helper process has its own limit."""

    slowest: str = ""
    longest_wait: float = 0.0
    """Wall time, the helper's answers included."""

    reasons: Counter = field(default_factory=Counter)

    def look(self, name: str, task: str, response: str, truth: str, options: dict) -> None:
        """Judges one response twice and notes whatever is wrong."""
        started, clock = time.process_time(), time.monotonic()
        try:
            result = compute_score(task, response, truth, **options)
            seconds, wait = time.process_time() - started, time.monotonic() - clock
            again = compute_score(task, response, truth, **options)
        except Exception as error:
            self.failures.append(f"{name} {task} {truth!r}: {type(error).__name__}: {error}")
            return
        self.judged, self.longest_wait = self.judged + 1, max(self.longest_wait, wait)
        self.reasons[result["reason"]] += 1
        if problem := problem_of(result, options) or ("" if result == again else "the second result differs"):
            self.failures.append(f"{name} {task} {truth!r}: {problem}: {result}")
        if seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest = seconds, f"{name} {task}"


def problem_of(result: dict, options: dict) -> str:
    """Which promise of compute_score a result breaks; "" for none."""
    lowest = -0.5 if read_options(**options).spatial == "penalty" else 0.0
    if not all(
        isinstance(result[k], float) and math.isfinite(result[k]) for k in ("score", "format", "accuracy", "acc")
    ):
        return "not a finite number"
    if result["format"] not in (0.0, 1.0) or not lowest <= result["accuracy"] <= 1.0:
        return "out of range"
    if result["score"] != result["format"] + result["accuracy"]:
        return "the sum is not the sum of the parts"
    if bool(result["reason"]) != (result["accuracy"] == 0.0):
        return "a zero without reason, or a reason without zero"
    json.dumps(result, ensure_ascii=False).encode("utf-8")  # raises where a log would
    return ""


def fuzz(count: int, seed: int, options: dict, progress: bool = False) -> Findings:
    """`count` responses, from `seed` on, each against one truth of one task."""
    from tqdm import tqdm

    findings, tasks = Findings(), list(TRUTHS)
    for i in tqdm(range(seed, seed + count), unit="response", disable=None if progress else True, leave=False):
        task = tasks[i % 3]
        truth = TRUTHS[task][i // 3 % len(TRUTHS[task])]
        findings.look(f"seed {i}", task, hostile_response(i), truth, options)
    return findings


def report(name: str, findings: Findings) -> dict:
    """Prints what was found; returns it for the line of JSON."""
    for failure in findings.failures[:50]:
        print(f"FAILURE {failure}")
    slowest = round(1000 * findings.slowest_seconds, 1)
    print(
        f"{name}: {findings.judged:,} judged, {len(findings.failures)} failures; slowest {slowest} ms of CPU time "
        f"({findings.slowest}), longest wait {1000 * findings.longest_wait:.0f} ms with the helper process"
    )
    return {
        "judged": findings.judged,
        "failures": len(findings.failures),
        "slowest_ms": slowest,
        "reasons": findings.reasons,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ekipl_reward.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200_000, help="responses (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first response (default %(default)s)")
    parser.add_argument("--rules", choices=("paper", "released"), default="paper")
    parser.add_argument("--skip-megabytes", action="store_true", help="leave out the responses of 1 MB")
    args = parser.parse_args(argv)
    if args.count < 0:
        parser.error(f"--count {args.count}: there are no fewer than 0 responses")
    options = {"rules": args.rules}
    found = {"small": fuzz(args.count, args.seed, options, progress=True)}
    if not args.skip_megabytes:
        found["1 MB"] = Findings()
        for name, response in megabyte_responses().items():
            for task, truths in TRUTHS.items():
                found["1 MB"].look(name, task, response, truths[0], options)
    numbers = {name: report(f"{args.rules}, {name}", findings) for name, findings in found.items()}
    print(json.dumps({"rules": args.rules, **numbers}))
    return 1 if any(findings.failures for findings in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
