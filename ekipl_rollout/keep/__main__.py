"""How fast selection is: `python -m ekipl_rollout.keep [--groups 4096] [--answers 24] [--kept 8]`.

Milliseconds for a whole batch of groups on one core, best of five, for the paper's rule and for every other one.
"""

import argparse
import random
import time

from ekipl_rollout.answer import POLICY, Candidate
from ekipl_rollout.group_filter import select
from ekipl_rollout.keep.rules import RULES
from ekipl_rollout.keep.ties import TIES
from ekipl_rollout.settings import SelectSettings

ROUNDS = 5


def draw_groups(groups: int, answers: int) -> list[list[Candidate]]:
    """A third of the answers from the policy, the rest from two experts; rewards as Reason-RFT's."""
    rng = random.Random(0)
    sources = [POLICY, "expert1", "expert2"]
    return [
        [
            Candidate(sources[i * 3 // answers], i, score, {"accuracy": float(score >= 2)}, length=rng.randint(20, 300))
            for i, score in enumerate(rng.choices([0.0, 1.0, 2.0], [1, 5, 4], k=answers))
        ]
        for _ in range(groups)
    ]


def milliseconds(groups: list[list[Candidate]], kept: int, settings: SelectSettings) -> float:
    """CPU time of this thread, best of ROUNDS: what else the machine does is not counted."""
    times = []
    for _ in range(ROUNDS):
        started = time.thread_time()
        for seed, group in enumerate(groups):
            select(group, kept, settings, seed=seed)
        times.append(time.thread_time() - started)
    return min(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=4096)
    parser.add_argument("--answers", type=int, default=24, help="N(1+M)")
    parser.add_argument("--kept", type=int, default=8, help="G")
    options = parser.parse_args()
    groups = draw_groups(options.groups, options.answers)
    print(f"{options.groups} groups x {options.answers} answers, best {options.kept} kept; milliseconds of one core")
    for rule in RULES:
        print(f"  {'rule=' + rule:<26} {milliseconds(groups, options.kept, SelectSettings(rule=rule)):7.1f}")
    for ties in TIES:
        print(f"  {'ties=' + ties:<26} {milliseconds(groups, options.kept, SelectSettings(ties=ties)):7.1f}")


if __name__ == "__main__":
    main()
