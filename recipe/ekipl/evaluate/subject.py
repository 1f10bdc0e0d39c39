"""Who is evaluated: a checkpoint or an expert, as the rest needs to know it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.ekipl.evaluate.ask import Answerer
from recipe.ekipl.evaluate.asked import expert_identity, model_digest
from recipe.ekipl.evaluate.checkpoint import Checkpoint, find_checkpoint, from_hub, merge
from recipe.ekipl.evaluate.on_expert import ExpertAnswerer, read_expert, with_sampling
from recipe.ekipl.evaluate.on_vllm import VllmAnswerer
from recipe.ekipl.evaluate.options import engine_of, sampling_of
from recipe.ekipl.plan import input_tokens


@dataclass
class Subject:
    """One model or expert."""

    name: str
    identity: dict[str, Any]
    """What decides its answers, beside the sampling."""

    start: Callable[[int], Answerer]
    """Starts it; the argument is the largest number of pictures in a prompt."""

    head: dict[str, Any] = field(default_factory=dict)
    """What a result says about it."""

    dollars_per_answer: Callable[[int], float] = lambda pictures: 0.0
    """At most; the argument is the largest number of pictures in a prompt."""


def locate(model: str, download: bool) -> Checkpoint:
    """A folder here, else a model on the hub. Raises SettingsError."""
    path = Path(model).expanduser()
    return find_checkpoint(path if path.exists() or model.startswith((".", "/")) else from_hub(model, download))


def default_out(args: argparse.Namespace, checkpoint: Checkpoint | None) -> Path:
    """In the run's own folder when there is one. The same model asked in another way is another folder."""
    asked = "greedy" if args.temperature == 0 else f"t{args.temperature:g}"
    if checkpoint is not None and checkpoint.run_dir is not None:
        return checkpoint.run_dir / "evaluations" / f"step-{checkpoint.step}-{asked}"
    name = args.expert or Path(args.model).resolve().name
    return Path("runs/evaluations") / f"{name}-{asked}"


def of_model(args: argparse.Namespace, checkpoint: Checkpoint) -> Subject:
    folder, engine = merge(checkpoint), engine_of(args)
    return Subject(
        name=args.model if str(folder) == args.model else f"{args.model} ({folder})",
        identity={"model": model_digest(folder), "dtype": engine.resolved_dtype},
        start=lambda pictures: VllmAnswerer(folder, sampling_of(args), engine, pictures, args.verbose),
        head={"model": args.model, "step": checkpoint.step, "samples_seen": checkpoint.samples_seen},
    )


def of_expert(args: argparse.Namespace) -> Subject:
    settings, expert = read_expert(args.expert, args.config_name, args.overrides, args.out)
    expert = with_sampling(expert, sampling_of(args))

    def dollars(pictures: int) -> float:
        return expert.price.of(input_tokens(expert, pictures), expert.max_tokens) if expert.price else 0.0

    return Subject(
        name=f"expert {expert.name} ({expert.kind}: {expert.model})",
        identity=expert_identity(expert),
        start=lambda pictures: ExpertAnswerer(settings, expert),
        head={"expert": expert.name, "model": expert.model, "step": None, "samples_seen": None},
        dollars_per_answer=dollars,
    )
