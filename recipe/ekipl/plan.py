"""What a run is going to do, in numbers, before it does it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from ekipl_rollout.bounds.budget import NANO
from ekipl_rollout.bounds.ledger import read_spent
from ekipl_rollout.record.key import OFFLINE
from ekipl_rollout.settings import EkiplSettings, ExpertSettings
from ekipl_rollout.when import When
from recipe.ekipl.data.questions import count_rows

TEXT_TOKENS = 400
"""Assumed input tokens of a question's text when money is estimated; the bill counts the real ones."""

ALL_KEPT = "G is N(1+M): every candidate is kept and nothing is chosen. Raise ekipl.num_answers or lower actor_rollout_ref.rollout.n."


@dataclass(frozen=True)
class Plan:
    """Resolved sizes of a run."""

    model: str
    train_rows: int
    validation_rows: int
    """0 where it is not known yet."""

    validation_by_source: dict[str, int]
    """Its parts."""

    pictures: int
    """Of one question."""

    num_answers: int
    num_experts: int
    num_kept: int
    candidates_per_row: int
    batch: int
    steps: int
    epochs: float
    asked_share: float
    """Share of the rows whose experts are asked, over the whole run; with when=unsolved the most that it can be."""

    requests: int
    """To experts over the whole run, before anything comes from the record: one a row that is asked and expert, N
    answers each."""

    dollars_per_epoch: float
    """At the configured prices, with every answer as long as its limit, the most input tokens (`input_tokens`), and
    every row asked."""

    dollars: float
    """Likewise, for the whole run and the rows that are asked."""

    dollars_by_expert: dict[str, float]
    """Its parts."""

    budget: float | None
    """ekipl.bounds.max_dollars."""

    spent: float | None
    """What earlier attempts in this run folder have cost, by its ledger; None when there is none or it is in use."""

    advantage: str
    run_dir: str


def input_tokens(expert: ExpertSettings, pictures: int) -> int:
    """Of one request about `pictures` pictures, each as dear as the model can make it; examples included."""
    return TEXT_TOKENS + (pictures + sum(len(e.pictures) for e in expert.examples)) * expert.reserved_picture_tokens


def assumptions(experts: Sequence[ExpertSettings], pictures: int) -> str:
    """What dollars are counted by before anything is asked."""
    dearest = ", ".join(f"{expert.name} {expert.reserved_picture_tokens}" for expert in experts)
    return (
        f"assumed: {TEXT_TOKENS} tokens of text a question, {pictures} picture{'s' * (pictures != 1)} of as many tokens as the "
        f"model can make of one ({dearest}), answers as long as they may be"
    )


def pictures_per_row(files: list[str], image_key: str) -> int:
    """As many as the first row of a file has, the most of all files: rows of a task are alike. 1 where that is unknown."""
    import pyarrow.parquet as pq

    found = []
    for name in files:
        with pq.ParquetFile(name) as file:
            if image_key in file.schema_arrow.names:
                first = next(file.iter_batches(1, columns=[image_key]), None)
                found += [len(first[image_key][0].as_py() or ())] if first else []
    return max(found, default=1)


def count_by_source(files: list[str]) -> dict[str, int]:
    """Rows by data source."""
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    for name in files:
        counts.update(str(value) for value in pq.read_table(name, columns=["data_source"])["data_source"].to_pylist())
    return dict(counts)


def used_rows(config: DictConfig, what: str) -> int:
    """Of data.<what>_files, as many as data.<what>_max_samples lets verl take (verl/utils/dataset/rl_dataset.py); `what`:
    train or val."""
    rows, most = count_rows(config.data[f"{what}_files"]), config.data.get(f"{what}_max_samples", -1)
    return min(rows, most) if most > 0 else rows


def _by_source(config: DictConfig) -> dict[str, int]:
    """Of the validation rows; empty where verl takes a part of them, by lot or not."""
    counts = count_by_source(config.data.val_files)
    return counts if sum(counts.values()) == used_rows(config, "val") else {}


def expected_share(settings: EkiplSettings, sources: dict[str, int], steps: int) -> float:
    """Share of the rows whose experts are asked, over `steps` steps of rows drawn from `sources`."""
    when, rows = When(settings), sum(sources.values())
    shares = {
        source: sum(when.expected_share(source, step) for step in range(1, steps + 1)) / max(steps, 1)
        for source in sources
    }
    return sum(shares[source] * count for source, count in sources.items()) / max(rows, 1)


def make_plan(config: DictConfig, settings: EkiplSettings) -> Plan:
    """Of a checked config whose rows can be read."""
    rows, batch = used_rows(config, "train"), config.data.train_batch_size
    per_epoch = rows // batch
    steps = config.trainer.total_training_steps or per_epoch * config.trainer.total_epochs
    live = [e for e in settings.experts if e.kind != OFFLINE and settings.record.mode != "replay"]
    pictures = pictures_per_row(config.data.train_files, config.data.image_key)
    per_row = {
        e.name: input_tokens(e, pictures) * e.dollars_per_million_input
        + settings.answers_of(e) * e.max_tokens * e.dollars_per_million_output
        for e in live
    }
    asked = expected_share(settings, count_by_source(config.data.train_files), steps) if settings.experts else 0.0
    spent = read_spent(settings.bounds.ledger or f"{settings.run_dir}/ledger.sqlite")
    return Plan(
        model=str(config.actor_rollout_ref.model.path),
        train_rows=rows,
        validation_rows=used_rows(config, "val"),
        validation_by_source=_by_source(config),
        pictures=pictures,
        num_answers=settings.num_answers,
        num_experts=len(settings.experts),
        num_kept=config.actor_rollout_ref.rollout.n,
        candidates_per_row=settings.num_candidates,
        batch=batch,
        steps=steps,
        epochs=round(steps / max(per_epoch, 1), 2),
        asked_share=round(asked, 4),
        requests=round(asked * steps * batch) * len(live),
        dollars_per_epoch=round(sum(per_row.values()) * per_epoch * batch / 1e6, 2),
        dollars=round(asked * sum(per_row.values()) * steps * batch / 1e6, 2),
        dollars_by_expert={name: round(asked * each * steps * batch / 1e6, 2) for name, each in per_row.items()},
        budget=settings.bounds.max_dollars,
        spent=None if spent is None else spent / NANO,
        advantage=_advantage(settings),
        run_dir=str(settings.run_dir),
    )


def _advantage(settings: EkiplSettings) -> str:
    """Baseline and deviation, and whatever else is not the paper's about what an answer counts."""
    others = {
        "rule": (settings.select.rule, "top_g"),
        "negative_experts": (settings.select.negative_experts, "keep"),
        "control": (settings.advantage.control, "none"),
        "weights": (settings.weights.mode, "none"),
        "sft": (settings.learn.has_sft, False),
    }
    words = [f"baseline={settings.advantage.baseline}", f"std={settings.advantage.std}"]
    return " ".join(words + [f"{name}={value}" for name, (value, papers) in others.items() if value != papers])


def _is_papers(settings: EkiplSettings) -> bool:
    return _advantage(settings) == _advantage(EkiplSettings())


def render(plan: Plan, settings: EkiplSettings) -> str:
    """The plan for people."""
    experts = ", ".join(f"{e.name} ({e.kind}: {e.model})" for e in settings.experts) or "none: plain GRPO"
    lines = [
        ("model", plan.model),
        ("data", f"{plan.train_rows} training rows, {plan.validation_rows or 'unknown'} validation rows"),
        ("experts", experts),
        (
            "group",
            f"{_answers(settings)} = {plan.candidates_per_row} candidates, the best {plan.num_kept} kept",
        ),
        ("advantage", plan.advantage + (" (the paper's)" if _is_papers(settings) else " (not the paper's)")),
        ("steps", f"{plan.steps} of {plan.batch} rows = {plan.epochs} epochs"),
        ("asking", _asking(plan, settings)),
        ("money", _money(plan)),
        *(
            [("", assumptions([e for e in settings.experts if e.kind != OFFLINE], plan.pictures))]
            if plan.dollars_per_epoch
            else []
        ),
        ("budget", _budget(plan)),
        ("record", f"{settings.record.mode}: {settings.record.path}"),
        ("run folder", plan.run_dir),
        *(("warning", text) for expert in settings.experts for text in expert.warnings()),
        *([("warning", ALL_KEPT)] if settings.experts and plan.candidates_per_row <= plan.num_kept else []),
    ]
    return "\n".join(f"  {name:<11} {value}" for name, value in lines)


def _answers(settings: EkiplSettings) -> str:
    own = [settings.answers_of(expert) for expert in settings.experts]
    if any(n != settings.num_answers for n in own):
        return " + ".join(str(n) for n in [settings.num_answers, *own]) + " answers"
    return f"{settings.num_answers} answers x {1 + len(own)} sources"


def _asking(plan: Plan, settings: EkiplSettings) -> str:
    """Who is asked, by which rule, in requests."""
    if not settings.experts:
        return "nobody"
    if settings.record.mode == "replay":
        return "nobody: answers come from the record"
    rule = settings.ask.when + "".join(f", {task}: {when}" for task, when in settings.ask.tasks.items())
    most = "at most " if _is_open(settings) else ""
    return f"{rule}: {most}{plan.asked_share:.0%} of the rows, {most}{plan.requests} requests"


def _money(plan: Plan) -> str:
    """What that comes to, and what the rule saves against asking for every row."""
    everything = plan.dollars / plan.asked_share if plan.asked_share else 0.0
    saved = f", ${everything - plan.dollars:.2f} less than always" if plan.asked_share < 1 and everything else ""
    epoch = f"${plan.dollars_per_epoch:.2f} an epoch with every row"
    parts = plan.dollars_by_expert.items()
    each = (
        " = " + " + ".join(f"{name} ${dollars:.2f}" for name, dollars in parts)
        if len(parts) > 1 and plan.dollars
        else ""
    )
    return f"at most ${plan.dollars:.2f}{each} at the configured prices ({epoch}){saved}"


def _is_open(settings: EkiplSettings) -> bool:
    """Only the run will tell how many rows are asked."""
    return "unsolved" in (settings.ask.when, *settings.ask.tasks.values())


def _budget(plan: Plan) -> str:
    spent = f", ${plan.spent:.2f} of it spent by earlier attempts" if plan.spent else ""
    if plan.budget is None:
        return "no limit" + (f"; ${plan.spent:.2f} spent by earlier attempts" if plan.spent else "")
    short = (
        "; the run goes on with the policy alone when it is gone"
        if plan.budget - (plan.spent or 0) < plan.dollars
        else ""
    )
    return f"${plan.budget:.2f}{spent}{short}"


def save(plan: Plan, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(plan), indent=1))
