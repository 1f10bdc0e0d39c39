"""What happens between verl's advantages and its update: zeroed rows, weights, and the fields that our loss reads.

One read of the rows from TransferQueue and one write. Fields are made per token here, after verl has padded and reordered
the batch: a field of ours on a padding row would be a copy of row 0's, of the wrong length.

    advantages, returns    verl's, 0 on the rows that have none
    rollout_is_weights     verl multiplies it into the policy loss after clipping; detached, fp32
    ekipl_expert           1 on expert rows                            (ekipl.learn)
    ekipl_sft              weight of -log pi on right expert rows      (ekipl.learn.sft)
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_to_nested

from ekipl_rollout.answer import POLICY
from ekipl_rollout.group_files import write_learned
from ekipl_rollout.settings import EkiplSettings, LearnSettings, WeightSettings
from ekipl_rollout.weigh.batch import BatchRow, weigh
from ekipl_rollout.weigh.modes import luffy_factor
from ekipl_rollout.weigh.row import WeighedRow
from ekipl_rollout.when import share

Groups = Mapping[str, Mapping[str, Any]]
FIELDS = ["advantages", "returns", "response_mask", "old_log_probs", "entropy"]


@dataclass
class Rows:
    """The batch as padded tensors [B, T], and who each row is."""

    session: list[str | None]
    """None for verl's padding."""

    uid: list[str]
    mask: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    old_log_probs: torch.Tensor
    entropy: torch.Tensor | None = None

    def per_row(self, values: list[float]) -> torch.Tensor:
        """[B] -> [B, T], 0 where the mask is."""
        return torch.tensor(values, dtype=torch.float32).unsqueeze(-1) * self.mask


def finish_batch(
    batch: KVBatchMeta, groups: Groups, settings: EkiplSettings, step: int
) -> tuple[KVBatchMeta, list[bool], dict[str, float]]:
    """(verl's meta with the fields of the next stage, which rows teach anything, metrics). Rows of a group that is not in
    `groups`, because its worker failed, are taken for padding."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=FIELDS)
    nested_mask = data["response_mask"]
    padded = {name: data[name].to_padded_tensor(0.0) for name in FIELDS if name in data}
    ids = [_identity(key, tag, groups) for key, tag in zip(batch.keys, batch.tags, strict=True)]
    rows = Rows([s for _, s in ids], [u for u, _ in ids], padded.pop("response_mask").float(), **padded)
    fields, metrics = compute_fields(rows, groups, settings, step)
    if settings.run_dir and settings.keep_groups:
        write_learned(settings.run_dir, step, learned(rows, fields))
    nested = {name: response_to_nested(value, nested_mask) for name, value in fields.items()}
    fields_of_rows = TensorDict(nested, batch_size=len(batch.keys))
    batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields_of_rows)
    return batch, teaching(fields), metrics


def teaching(fields: Mapping[str, torch.Tensor]) -> list[bool]:
    """Rows with an advantage or an SFT term; to the others only KL and entropy terms apply."""
    signal = fields["advantages"] != 0
    if "ekipl_sft" in fields:
        signal |= fields["ekipl_sft"] != 0
    return signal.any(-1).tolist()


def _identity(key: str, tag: Mapping[str, Any], groups: Groups) -> tuple[str, str | None]:
    """(uid, session) of a key `{uid}_{session}_{index}`."""
    uid, session, _ = key.rsplit("_", 2)
    return uid, None if tag.get("is_padding", False) or uid not in groups else session


def compute_fields(
    rows: Rows, groups: Groups, settings: EkiplSettings, step: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The fields to write, [B, T] each, and the metrics."""
    facts = [None if s is None else groups[u]["rows"][s] for u, s in zip(rows.uid, rows.session, strict=True)]
    stays = rows.per_row([float(_has_advantage(u, s, groups)) for u, s in zip(rows.uid, rows.session, strict=True)])
    controlled = settings.advantage.control != "none"
    advantages = stays.clone() if controlled else rows.advantages * stays
    fields = {"advantages": advantages, "returns": advantages if controlled else rows.returns * stays}
    by_row = (advantages.sum(-1) / rows.mask.sum(-1).clamp(min=1)).tolist()
    experts = [expert.name for expert in settings.experts]
    weighed = list(_weighed(rows, facts, by_row))
    weights, metrics = weigh(weighed, groups, settings.weights, experts)
    metrics.update(_advantage_metrics(weighed, experts))
    if weights:
        fields["rollout_is_weights"] = rows.per_row([weights.get(at, 1.0) for at in range(len(facts))])
    elif settings.weights.mode == "luffy":
        fields["rollout_is_weights"] = luffy_weights(rows, facts, settings.weights)
    if settings.learn.needs_loss:
        fields["ekipl_expert"] = rows.per_row([float(_is_expert(fact)) for fact in facts])
    if settings.learn.has_sft:
        fields["ekipl_sft"] = sft_weights(rows, facts, settings.learn, step)
        metrics["ekipl/sft/weight"] = share(settings.learn.sft, step)
        metrics["ekipl/sft/rows"] = float((fields["ekipl_sft"] > 0).any(-1).sum())
    return fields, metrics


def learned(rows: Rows, fields: Mapping[str, torch.Tensor]) -> list[tuple[str, str, float, float]]:
    """(uid, session, advantage, weight) of each row, means over its tokens; verl's padding is left out."""
    lengths = rows.mask.sum(-1).clamp(min=1)
    advantages = (fields["advantages"].sum(-1) / lengths).tolist()
    weights = (fields.get("rollout_is_weights", rows.mask).sum(-1) / lengths).tolist()
    return [
        (uid, session, advantages[at], weights[at])
        for at, (uid, session) in enumerate(zip(rows.uid, rows.session, strict=True))
        if session is not None
    ]


def luffy_weights(rows: Rows, facts: list, settings: WeightSettings) -> torch.Tensor:
    """[B, T] gamma p / (p + gamma)^2 on expert tokens (p under the old policy), 1 on the policy's (weigh/modes.py)."""
    shaped = luffy_factor(rows.old_log_probs.float().clamp(max=0.0).exp(), settings.luffy_gamma)
    expert = rows.per_row([float(_is_expert(fact)) for fact in facts])
    return torch.where(expert > 0, shaped, 1.0) * rows.mask


def sft_weights(rows: Rows, facts: list, settings: LearnSettings, step: int) -> torch.Tensor:
    """[B, T] weight of -log pi: the schedule's on right expert rows, times the focus."""
    weight = rows.per_row([float(_is_expert(fact) and fact["right"]) for fact in facts]) * share(settings.sft, step)
    if settings.sft_focus == "chord":
        p = rows.old_log_probs.float().clamp(max=0.0).exp()
        return weight * p * (1 - p)
    if settings.sft_focus == "srft" and rows.entropy is not None:
        mean = (rows.entropy.float() * rows.mask).sum(-1, keepdim=True) / rows.mask.sum(-1, keepdim=True).clamp(min=1)
        return weight * torch.exp(-mean) / 2
    return weight


def _has_advantage(uid: str, session: str | None, groups: Groups) -> bool:
    return session is not None and int(session) not in groups[uid]["zeroed"]


def _is_expert(fact: Mapping[str, Any] | None) -> bool:
    return fact is not None and fact["source"] != POLICY


def _weighed(rows: Rows, facts: list, advantages: list[float]):
    """verl's padding is left out."""
    logs = (rows.old_log_probs.double() * rows.mask).sum(-1).tolist()
    lengths = rows.mask.sum(-1).tolist()
    for at, fact in enumerate(facts):
        if fact is not None:
            known = WeighedRow(
                fact["source"], logs[at], int(lengths[at]), fact.get("log_own"), fact.get("log_under", {})
            )
            yield BatchRow(at, rows.uid[at], known, advantages[at])


def _advantage_metrics(rows: list[BatchRow], experts: list[str]) -> dict[str, float]:
    """Mean advantage by source, and the share of its rows that push up."""
    alias = {POLICY: POLICY, **{name: f"expert{i}" for i, name in enumerate(experts, start=1)}}
    by_source: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_source[alias.get(row.row.source, row.row.source)].append(row.advantage)
    metrics = {}
    for source, values in by_source.items():
        metrics[f"ekipl/{source}/advantage"] = sum(values) / len(values)
        metrics[f"ekipl/{source}/advantage_positive"] = sum(value > 0 for value in values) / len(values)
    return metrics
