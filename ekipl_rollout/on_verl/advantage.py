"""A = (R - mean) / std with mean and std over a wider set than the kept rows (paper, Eq. 1, has the kept ones).

verl's advantage step hands an estimator rewards, mask and uids of the kept rows, and nothing else. The statistics of
the dropped candidates come by another way: the worker puts them on the prompt's tag in TransferQueue, our sampler reads
the tags when it takes the batch, and leaves them here. Sampler and estimator run in the same process, verl's task
runner, one right after the other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from ekipl_rollout.settings import AdvantageSettings

NAME = "ekipl"
EPSILON = 1e-6  # added to std, as verl's GRPO does

_groups: dict[str, Mapping[str, Any]] = {}
_settings = AdvantageSettings(baseline="all", std="all")


def remember_groups(groups: Mapping[str, Mapping[str, Any]], settings: AdvantageSettings) -> None:
    """Takes the group dictionaries of the batch that is about to be trained on; forgets the last batch's."""
    global _settings
    _groups.clear()
    _groups.update(groups)
    _settings = settings


def advantages(
    rewards: np.ndarray, uids: np.ndarray, groups: Mapping[str, Mapping[str, Any]], settings: AdvantageSettings
) -> np.ndarray:
    """[B] advantages of rows with `rewards` [B] in groups `uids` [B].

    Rows of an unknown group are verl's padding (uid `pad...`, masked out later): 0. Any other unknown group means that
    the sampler is not ours, and is an error.
    """
    result = np.zeros(len(rewards))
    for i, (reward, uid) in enumerate(zip(rewards, uids, strict=True)):
        if uid not in groups:
            if str(uid).startswith("pad"):
                continue
            raise RuntimeError(
                f"no statistics of group {uid}: algorithm.adv_estimator={NAME} needs our sampler "
                "(trainer.v1.sampler.custom_sampler.path=pkg://ekipl_rollout.on_verl.sampler)."
            )
        mean = groups[uid][settings.baseline][0]
        scale = 1.0 if settings.std == "none" else groups[uid][settings.std][1] + EPSILON
        result[i] = (reward - mean) / scale
    return result


def ekipl_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any = None,
    index: np.ndarray | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """verl's estimator signature: rewards and mask [B, T], uids [B] -> advantages and returns [B, T]."""
    assert index is not None  # verl passes the uids to every estimator
    rewards = token_level_rewards.sum(dim=-1)
    per_row = advantages(rewards.double().cpu().numpy(), index, _groups, _settings)
    result = torch.as_tensor(per_row, dtype=rewards.dtype, device=rewards.device).unsqueeze(-1) * response_mask
    return result, result


if NAME not in ADV_ESTIMATOR_REGISTRY:
    register_adv_est(NAME)(ekipl_advantage)
