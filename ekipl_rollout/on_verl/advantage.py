"""A = (R - mean) / std with mean and std over a wider set than the kept rows (paper, Eq. 1, has the kept ones).

verl's advantage step hands an estimator rewards, mask and uids of the kept rows, and nothing else. The statistics of
the dropped candidates come by another way: the worker puts them on the prompt's tag in TransferQueue, our sampler reads
the tags when it takes the batch, and leaves them here. Sampler, estimator and trainer run in the same process, verl's
task runner, one right after the other.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from ekipl_rollout.settings import AdvantageSettings

NAME = "ekipl"
EPSILON = 1e-6  # added to std, as verl's GRPO does

_groups: dict[str, Mapping[str, Any]] | None = None
"""None until our sampler has handed over a batch."""

_settings = AdvantageSettings(baseline="all", std="all")


def remember_groups(groups: Mapping[str, Mapping[str, Any]], settings: AdvantageSettings) -> None:
    """Takes the group dictionaries of the batch that is about to be trained on; forgets the last batch's."""
    global _groups, _settings
    _groups, _settings = dict(groups), settings


def remembered_groups() -> Mapping[str, Mapping[str, Any]]:
    """The group dictionaries of the batch that is being trained on, by uid."""
    return _groups or {}


def advantages(
    rewards: torch.Tensor, uids: np.ndarray, groups: Mapping[str, Mapping[str, Any]], settings: AdvantageSettings
) -> torch.Tensor:
    """[B] advantages of rows with `rewards` [B] in groups `uids` [B], in the dtype of the rewards.

    What is taken over the kept rows is computed as verl's GRPO does, operation by operation, so that nothing differs in
    a bit. Rows of an unknown group are verl's padding (uid `pad...`, masked out later), or what a worker had written of a
    group before it failed: 0.
    """
    result = torch.zeros_like(rewards)
    rows = defaultdict(list)
    for i, uid in enumerate(uids):
        rows[uid].append(i)
    for uid, of_group in rows.items():
        if uid not in groups:
            continue
        kept = rewards[of_group]
        mean = _statistic(torch.mean, 0, settings.baseline, kept, groups[uid])
        std = None if settings.std == "none" else _statistic(torch.std, 1, settings.std, kept, groups[uid])
        result[of_group] = kept - mean if std is None else (kept - mean) / (std + EPSILON)
    return result


def _statistic(take: Any, which: int, scope: str, kept: torch.Tensor, group: Mapping[str, Any]) -> torch.Tensor:
    """Mean (which=0) or std (1) over a scope; the only row of a group has mean 0 and std 1, as in verl."""
    if scope != "selected":
        return kept.new_tensor(group[scope][which])
    return take(kept) if len(kept) > 1 else kept.new_tensor(float(which))


def ekipl_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any = None,
    index: np.ndarray | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's estimator signature: rewards and mask [B, T], uids [B] -> advantages and returns [B, T].

    Raises RuntimeError when the sampler is not ours.
    """
    assert index is not None  # verl passes the uids to every estimator
    if _groups is None:
        raise RuntimeError(
            f"no statistics of any group: algorithm.adv_estimator={NAME} needs our sampler "
            "(trainer.v1.sampler.custom_sampler.path=pkg://ekipl_rollout.on_verl.sampler)."
        )
    with torch.no_grad():
        per_row = advantages(token_level_rewards.sum(dim=-1), index, _groups, _settings)
        result = per_row.unsqueeze(-1) * response_mask
    return result, result


if NAME not in ADV_ESTIMATOR_REGISTRY:
    register_adv_est(NAME)(ekipl_advantage)
