"""verl's policy loss, and terms on expert rows that it has no place for (`ekipl.learn`).

verl's `ppo_loss` sees advantages and masks but not who wrote a row. This loss calls it unchanged and adds the difference
that a setting makes, each as a matrix that is 0 outside of expert rows and normalised over the same batch, so that with
the defaults nothing is added at all. Set on the actor's workers by trainer.py, through verl's own `set_loss_fn`.
"""

from typing import Any

import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn, kl_penalty
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from ekipl_rollout.settings import LearnSettings

LARGEST_LOG_RATIO = 20.0  # as verl clamps it


def ekipl_loss(
    config: Any, learn: LearnSettings, model_output: Any, data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's signature after `config` (ActorConfig) and `learn` are bound: loss of a micro-batch, and its metrics.

    Needs the fields of weighing.py on every row: `ekipl_expert`, and `ekipl_sft` where there is an SFT term.
    """
    loss, metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    names = ["response_mask", "old_log_probs", "advantages", "rollout_is_weights", "ref_log_prob"]
    names = [name for name in [*names, "ekipl_expert", "ekipl_sft"] if name in data]
    rows = data.select(*names).to_padded_tensor()
    expert, log_prob = rows["ekipl_expert"], no_padding_2_padding(model_output["log_probs"], data)
    mask = rows["response_mask"].to(bool)

    def over_batch(matrix: torch.Tensor) -> torch.Tensor:
        return agg_loss(matrix, mask, config.loss_agg_mode, **config.global_batch_info)

    if not learn.kl_on_experts and config.use_kl_loss:
        kl = kl_penalty(logprob=log_prob, ref_logprob=rows["ref_log_prob"], kl_penalty=config.kl_loss_type)
        loss = loss - config.kl_loss_coef * over_batch(kl * expert)
    if not learn.entropy_on_experts and model_output.get("entropy") is not None:
        loss = loss + config.entropy_coeff * over_batch(no_padding_2_padding(model_output["entropy"], data) * expert)
    if not learn.clip_on_experts:
        loss = loss + over_batch(_unclipped(rows, log_prob) * expert) - _clipped(config, rows, log_prob, mask)
    if learn.has_sft:
        sft = over_batch(-log_prob * rows["ekipl_sft"])
        loss = loss + sft
        info = config.global_batch_info  # ppo_loss has filled it, and sums its own metrics by the same rule
        whole = info["dp_size"] > 1 or any(value is not None for name, value in info.items() if name != "dp_size")
        metrics["ekipl_sft_loss"] = Metric(
            value=sft.detach(), aggregation=AggregationType.SUM if whole else AggregationType.MEAN
        )
    return loss, metrics


def _unclipped(rows: TensorDict, log_prob: torch.Tensor) -> torch.Tensor:
    """[B, T] -w A ratio."""
    ratio = torch.exp((log_prob - rows["old_log_probs"]).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO))
    loss = -rows["advantages"] * ratio
    return loss * rows["rollout_is_weights"] if "rollout_is_weights" in rows else loss


def _clipped(config: Any, rows: TensorDict, log_prob: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What verl's policy loss counts for expert rows: with A = 0 all other rows count nothing."""
    loss, _ = get_policy_loss_fn(config.policy_loss.get("loss_mode", "vanilla"))(
        old_log_prob=rows["old_log_probs"],
        log_prob=log_prob,
        advantages=rows["advantages"] * rows["ekipl_expert"],
        response_mask=mask,
        loss_agg_mode=config.loss_agg_mode,
        config=config,
        rollout_is_weights=rows.get("rollout_is_weights", None),
    )
    return loss
