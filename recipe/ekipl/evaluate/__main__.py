"""How good a checkpoint or an expert is on held-out rows.

    python -m recipe.ekipl.evaluate --model runs/ekipl --data data/parquet-0
    python -m recipe.ekipl.evaluate --model Qwen/Qwen2-VL-2B-Instruct --data /data/rows --splits trance --samples 64 --temperature 1
    python -m recipe.ekipl.evaluate --expert gpt-4o --data /data/rows --splits clevr_math experts=openai

Answers are kept as they come: the same command again goes on where it was stopped or killed, and gives the same files,
byte for byte. Other --rules judge the same answers anew. The last line of stdout is the result as one JSON object.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

from tqdm import tqdm

from ekipl_rollout.errors import EkiplError
from recipe.ekipl import cpu
from recipe.ekipl.evaluate.answers import AnswerFile
from recipe.ekipl.evaluate.ask import Answerer, ask_missing
from recipe.ekipl.evaluate.asked import claim_folder
from recipe.ekipl.evaluate.judge import judge_row, write_scores
from recipe.ekipl.evaluate.options import check, read, rules_of, sampling_of
from recipe.ekipl.evaluate.result import render, summarize_split, write_result
from recipe.ekipl.evaluate.rows import find_splits, read_rows
from recipe.ekipl.evaluate.scan import Scanned, scan
from recipe.ekipl.evaluate.subject import Subject, default_out, locate, of_expert, of_model
from recipe.ekipl.processes import alone_in


def main(argv: list[str] | None = None) -> int:
    args = read(__doc__ or "", argv)
    try:
        check(args)
        return evaluate(args)
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on where it was.", file=sys.stderr)
        return 130


def evaluate(args: argparse.Namespace) -> int:
    splits = find_splits(args.data, args.splits)
    checkpoint = locate(args.model, download=not args.dry_run) if args.model else None
    if cpu.wanted():
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        os.environ.update(cpu.environment())
    if args.dry_run and checkpoint and checkpoint.shards:
        print(f"  {checkpoint.shards} holds FSDP shards, to be merged into {checkpoint.folder} first")
        return 0
    args.out = args.out or default_out(args, checkpoint)
    subject = of_model(args, checkpoint) if checkpoint else of_expert(args)
    how = {**asdict(sampling_of(args)), "min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    asked = {**subject.identity, **how}
    scanned = [scan(split, asked, args.limit) for split in splits]
    print(plan(args, subject, scanned), flush=True)
    if args.dry_run:
        return 0
    busy = f"another process evaluates into {args.out}. Wait for it, or choose another --out."
    with alone_in(args.out, busy):
        claim_folder(args.out, asked, {"who": subject.name, "batch": args.batch, "engine": args.engine})
        labels = {"name": args.out.name, "method": args.method, "train_seed": args.train_seed}
        seen = {} if args.samples_seen is None else {"samples_seen": args.samples_seen}
        return run(args, subject, scanned, {**labels, **subject.head, **seen, "sampling": how})


def plan(args: argparse.Namespace, subject: Subject, scanned: list[Scanned]) -> str:
    """What is going to be done, and what is there already."""
    s = sampling_of(args)
    drawn = f"temperature {s.temperature:g}, top-p {s.top_p:g}, top-k {s.top_k}, seed {s.seed}"
    how = f"{drawn if s.temperature else 'greedy'}, at most {s.max_tokens} tokens an answer"
    lines, missing = [("who", subject.name), ("how", how)], 0
    for found in scanned:
        keys, there = found.keys(args.samples), AnswerFile(args.out / found.name, found.digests)
        done = sum(key in there for key in keys)
        missing += len(keys) - done
        lines.append((found.name, f"{len(found.rows)} rows x {args.samples} = {len(keys)} answers, {done} there"))
    if each := subject.dollars_per_answer(max((found.most_pictures for found in scanned), default=0)):
        dollars = missing * each
        lines.append(("money", f"at most ${dollars:.2f} for {missing} answers, at the configured prices"))
    lines += [("rules", rules_of(args)), ("out", str(args.out))]
    return "\n".join(f"  {name:<15} {text}" for name, text in lines)


def run(args: argparse.Namespace, subject: Subject, scanned: list[Scanned], head: dict[str, Any]) -> int:
    """Asks for what is missing, judges everything, writes the result."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # job schedulers stop with it: end as with Ctrl-C
    started: list[Answerer] = []

    def answerer() -> Answerer:
        if not started:
            print("  starting        a model takes vLLM about a minute" if args.model else "  asking", flush=True)
            started.append(subject.start(max(found.most_pictures for found in scanned)))
        return started[0]

    summaries, lost = {}, {}
    try:
        for found in scanned:
            file = AnswerFile(args.out / found.name, found.digests)
            did_not_come = _ask(args, found, file, answerer)
            if did_not_come:
                lost[found.name] = did_not_come
            else:
                summaries[found.name] = _judge(args, found, file)
    finally:
        for one in started:
            one.close()
    rules = rules_of(args)
    result = write_result(args.out / f"result.{rules}.json", {**head, "rules": rules}, summaries, list(lost))
    print(render(result))
    print(json.dumps(result))
    if lost:
        missing = ", ".join(f"{number} of {name}" for name, number in lost.items())
        print(
            f"answers did not come: {missing}. These splits are left out; the same command asks again.", file=sys.stderr
        )
    return 1 if lost else 0


def _ask(args: argparse.Namespace, found: Scanned, file: AnswerFile, answerer: Callable[[], Answerer]) -> int:
    """Returns how many answers did not come."""
    if file.outdated:
        print(f"  {found.name}: {file.outdated} answers are to rows that have changed since, and do not count")
    keys = found.keys(args.samples)
    there = sum(key in file for key in keys)
    rows = islice(read_rows(found.split), len(found.rows)) if there < len(keys) else ()
    with tqdm(total=len(keys), initial=there, desc=found.name, unit="answer", disable=None) as bar:
        return ask_missing(rows, found.digests, file, answerer, args.samples, args.batch, bar.update)


def _judge(args: argparse.Namespace, found: Scanned, file: AnswerFile) -> dict[str, Any]:
    """Writes the scores of every row; returns the split's numbers."""
    answers = [[file.answers[row["id"], sample] for sample in range(args.samples)] for row in found.rows]
    pairs = zip(found.rows, answers, strict=True)
    bar = tqdm(pairs, total=len(answers), desc=f"judging {found.name}", unit="row", disable=None, leave=False)
    judged = (judge_row(row, of_row, args.rules, args.enhanced) for row, of_row in bar)
    scores = write_scores(args.out / found.name / f"scores.{rules_of(args)}.jsonl", judged)
    return summarize_split(scores, [answer for of_row in answers for answer in of_row])


if __name__ == "__main__":
    sys.exit(main())
