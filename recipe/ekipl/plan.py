"""What a run is going to do, in numbers, before it does it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from ekipl_rollout.settings import EkiplSettings

TOKENS_PER_PROMPT = 400
"""Assumed input tokens of a question with its pictures when money is estimated; the bill counts the real ones."""


@dataclass(frozen=True)
class Plan:
    """Resolved sizes of a run."""

    model: str
    train_rows: int
    validation_rows: int
    num_answers: int
    num_experts: int
    num_kept: int
    candidates_per_row: int
    batch: int
    steps: int
    epochs: float
    requests: int
    """To experts over the whole run, before anything comes from the record: one a row and expert, N answers each."""

    dollars_per_epoch: float
    """At the configured prices, with every answer as long as its limit and TOKENS_PER_PROMPT input tokens."""

    advantage: str
    run_dir: str


def count_rows(files: list[str]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(name).num_rows for name in files)


def make_plan(config: DictConfig, settings: EkiplSettings) -> Plan:
    rows, batch = count_rows(config.data.train_files), config.data.train_batch_size
    per_epoch = rows // batch
    steps = config.trainer.total_training_steps or per_epoch * config.trainer.total_epochs
    per_row = sum(
        TOKENS_PER_PROMPT * e.dollars_per_million_input
        + settings.num_answers * e.max_tokens * e.dollars_per_million_output
        for e in settings.experts
    )
    return Plan(
        model=str(config.actor_rollout_ref.model.path),
        train_rows=rows,
        validation_rows=count_rows(config.data.val_files),
        num_answers=settings.num_answers,
        num_experts=len(settings.experts),
        num_kept=config.actor_rollout_ref.rollout.n,
        candidates_per_row=settings.num_answers * (1 + len(settings.experts)),
        batch=batch,
        steps=steps,
        epochs=round(steps / max(per_epoch, 1), 2),
        requests=steps * batch * len(settings.experts),
        dollars_per_epoch=round(per_row * per_epoch * batch / 1e6, 2),
        advantage=f"baseline={settings.advantage.baseline} std={settings.advantage.std}",
        run_dir=str(settings.run_dir),
    )


def render(plan: Plan, settings: EkiplSettings) -> str:
    """The plan for people."""
    experts = ", ".join(f"{e.name} ({e.kind}: {e.model})" for e in settings.experts) or "none: plain GRPO"
    lines = [
        ("model", plan.model),
        ("data", f"{plan.train_rows} training rows, {plan.validation_rows} validation rows"),
        ("experts", experts),
        (
            "group",
            f"{plan.num_answers} answers x {1 + plan.num_experts} sources = {plan.candidates_per_row} candidates, the best {plan.num_kept} kept",
        ),
        ("advantage", plan.advantage + (" (the paper's)" if settings.advantage.is_papers else " (not the paper's)")),
        ("steps", f"{plan.steps} of {plan.batch} rows = {plan.epochs} epochs"),
        (
            "asking",
            f"{plan.requests} requests; at most ${plan.dollars_per_epoch:.2f} an epoch at the configured prices",
        ),
        ("record", f"{settings.record.mode}: {settings.record.path}"),
        ("run folder", plan.run_dir),
    ]
    return "\n".join(f"  {name:<11} {value}" for name, value in lines)


def save(plan: Plan, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(plan), indent=1))
