"""Two evaluations on the same rows: difference, interval and p for each split.

    python -m recipe.ekipl.measure.compare runs/ekipl/evaluations/step-50-greedy runs/grpo/evaluations/step-50-greedy

Several runs of a method (training seeds) are given with commas. Where both sides name their seeds (--train-seed of the
evaluation), those that both have are paired, and the others left out. The last line of stdout is one JSON object.
"""

import argparse
import json
import sys
from dataclasses import asdict

from ekipl_rollout.errors import EkiplError, SettingsError
from recipe.ekipl.measure.results import Result, find_results, score_matrix, shared_seeds
from recipe.ekipl.measure.statistics import Comparison, compare


def compare_results(
    first: list[Result], second: list[Result], splits: list[str] | None = None
) -> dict[str, Comparison]:
    """First minus second, by split; on the training seeds that both have, where they have some in common.

    Raises SettingsError when they share no split or not the same rows.
    """
    if seeds := shared_seeds(first, second):
        first, second = (_of_seeds(side, seeds) for side in (first, second))
    shared = [s for s in first[0].splits if all(s in result.splits for result in [*first, *second])]
    missing = [split for split in splits or [] if split not in shared]
    if missing or not shared:
        raise SettingsError(
            f"not evaluated by both sides: {', '.join(missing) or 'any split'}. In common: {', '.join(shared) or 'none'}."
        )
    found = {}
    for split in splits or shared:
        scores = score_matrix([*first, *second], split)
        found[split] = compare(scores[: len(first)], scores[len(first) :], by_run=bool(seeds))
    return found


def _of_seeds(side: list[Result], seeds: list[int]) -> list[Result]:
    by_seed = {result.content["train_seed"]: result for result in side}
    return [by_seed[seed] for seed in seeds]


def render(found: dict[str, Comparison], names: tuple[str, str]) -> str:
    lines = [
        f"{names[0]} minus {names[1]}, in points of accuracy; p: sign-flip permutation test",
        f"{'split':<16} {'rows':>6} {'difference':>11} {'95 %':>18} {'p':>8}   better  worse",
    ]
    for split, c in found.items():
        interval = f"{100 * c.low:+.1f} .. {100 * c.high:+.1f}"
        lines.append(
            f"{split:<16} {c.rows:>6} {100 * c.difference:>+11.2f} {interval:>18} {c.p:>8.4f} {c.better:>8} {c.worse:>6}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="evaluation folder, or several of one method with commas")
    parser.add_argument("second", help="what it is compared with")
    parser.add_argument("--rules", default="paper", help="paper (default), released or released-enhanced")
    parser.add_argument("--splits", nargs="+", help="default: all that both have")
    args = parser.parse_args(argv)
    try:
        first, second = (find_results(side.split(","), args.rules) for side in (args.first, args.second))
        found = compare_results(first, second, args.splits)
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(render(found, (args.first, args.second)))
    if max(len(first), len(second)) > 1:
        seeds = ", ".join(map(str, shared_seeds(first, second)))
        print(
            f"paired by training seed: {seeds}" if seeds else "runs are not paired: no training seed is known of both"
        )
    print(json.dumps({split: asdict(comparison) for split, comparison in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
