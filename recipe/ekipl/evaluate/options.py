"""The options of the command, checked together before anything is loaded."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.judge import RULES
from recipe.ekipl.evaluate.on_vllm import Engine, Sampling, engine_argument
from recipe.ekipl.measure.table_rows import LABELS


def read(doc: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options. Settings of the configuration may stand anywhere, also behind the list of --splits."""
    args = _parser(doc).parse_intermixed_args(argv)
    settings = [word for word in args.splits if "=" in word and not word.endswith(".parquet")]
    args.splits = [word for word in args.splits if word not in settings]
    args.overrides += settings
    return args


def _parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.ekipl.evaluate", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for add in (_who_answers, _what_is_asked, _how_it_is_asked, _how_it_is_judged, _what_is_kept):
        add(parser)
    return parser


def _who_answers(parser: argparse.ArgumentParser) -> None:
    who = parser.add_argument_group("who answers (one of the two)")
    who.add_argument(
        "--model",
        help="Hugging Face folder, verl checkpoint (FSDP or Megatron; a run, its checkpoints, a step, or its actor/), or a model on the hub",
    )
    who.add_argument(
        "--expert", help="name of an expert of the configuration; experts=<file> and other settings follow as key=value"
    )
    who.add_argument(
        "--config-name",
        default="ekipl_trainer",
        help="configuration that --expert is looked up in (default: %(default)s)",
    )
    who.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of that configuration, in Hydra's syntax"
    )


def _what_is_asked(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is asked")
    what.add_argument("--data", type=Path, help="folder that `recipe.ekipl.data reason_rft` wrote")
    what.add_argument(
        "--splits",
        nargs="+",
        default=[],
        metavar="SPLIT",
        help="test splits of Table 1 (clevr_math, ...) or .parquet files; default: every test split below --data",
    )
    what.add_argument("--limit", type=int, metavar="ROWS", help="only the first rows of each split")
    what.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="answers to each row; pass@k for k = 1 ... N comes from one pass (default: %(default)s)",
    )


def _how_it_is_asked(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how it is asked")
    how.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0 is greedy (default); Reason-RFT evaluates at 0.1 with --top-p 0.9 --top-k 50",
    )
    how.add_argument("--top-p", type=float, default=1.0)
    how.add_argument("--top-k", type=int, default=-1, help="-1: all tokens (default)")
    how.add_argument("--max-tokens", type=int, default=768, help="of an answer (default: %(default)s, Reason-RFT's)")
    how.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of sampled answers; each answer has a seed of its own, made from this, its row and its index",
    )
    how.add_argument(
        "--batch",
        type=int,
        default=256,
        help="answers asked for together, and lost at most when killed (default: %(default)s)",
    )
    how.add_argument(
        "--min-pixels",
        type=int,
        help="pictures are scaled up to this; default: as the data or the model's processor says",
    )
    how.add_argument("--max-pixels", type=int, help="pictures are scaled down to this, as in training")
    how.add_argument("--dtype", default="auto", help="auto: float32 on a CPU, else as the model's config says")
    how.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another argument of vllm.LLM, such as tensor_parallel_size=2; can be given several times",
    )


def _how_it_is_judged(parser: argparse.ArgumentParser) -> None:
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument(
        "--rules",
        choices=RULES,
        default="paper",
        help="paper: this project's reading of the paper; released: Reason-RFT's shipped evaluation (default: %(default)s)",
    )
    judged.add_argument(
        "--enhanced",
        action="store_true",
        help="with --rules released: Reason-RFT's extra rule for proprietary models on structure perception",
    )


def _what_is_kept(parser: argparse.ArgumentParser) -> None:
    kept = parser.add_argument_group("what is kept")
    kept.add_argument(
        "--out", type=Path, help="folder of this evaluation; default: in the run's folder, or runs/evaluations/<name>"
    )
    kept.add_argument(
        "--method", help=f"row and curve in tables and figures: {', '.join(LABELS)}, or a name of your own"
    )
    kept.add_argument("--train-seed", type=int, help="seed of the training run; several seeds of a method are averaged")
    kept.add_argument("--samples-seen", type=int, help="training rows seen, for Figure 3; default: by the run's plan")
    kept.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    kept.add_argument("--verbose", action="store_true", help="show what vLLM prints")


def check(args: argparse.Namespace) -> None:
    """Raises SettingsError with everything that cannot work."""
    problems = []
    if bool(args.model) == bool(args.expert):
        problems.append("give either --model or --expert: one of them answers.")
    if args.overrides and not args.expert:
        problems.append(f"{' '.join(args.overrides)}: settings of the configuration are for --expert.")
    for name in ("limit", "samples", "batch", "max_tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            problems.append(f"--{name.replace('_', '-')} {value} must be 1 or more.")
    if args.temperature < 0 or not 0 < args.top_p <= 1:
        problems.append(
            f"--temperature {args.temperature} must be 0 or more, --top-p {args.top_p} above 0 and at most 1."
        )
    if args.samples > 1 and args.temperature == 0:
        problems.append(
            f"--samples {args.samples} at temperature 0 are the same answer {args.samples} times. Set --temperature, for example 1.0."
        )
    if args.enhanced and args.rules != "released":
        problems.append("--enhanced is a rule of Reason-RFT's released evaluation. Add --rules released.")
    if args.min_pixels and args.max_pixels and args.min_pixels > args.max_pixels:
        problems.append(f"--min-pixels {args.min_pixels} is more than --max-pixels {args.max_pixels}.")
    if problems:
        raise SettingsError(*problems)


def sampling_of(args: argparse.Namespace) -> Sampling:
    return Sampling(args.temperature, args.top_p, args.top_k, args.max_tokens, args.seed)


def engine_of(args: argparse.Namespace) -> Engine:
    return Engine(args.dtype, args.min_pixels, args.max_pixels, dict(engine_argument(text) for text in args.engine))


def rules_of(args: argparse.Namespace) -> str:
    """The rules as files and results name them."""
    return args.rules + ("-enhanced" if args.enhanced else "")
