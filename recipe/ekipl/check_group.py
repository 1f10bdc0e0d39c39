"""What a group is made of, and what is learned from it: settings that do not fit each other (checks.py)."""

import asyncio
from collections.abc import Iterator

from omegaconf import DictConfig

from ekipl_rollout.errors import Lacking
from ekipl_rollout.experts.score import can_score
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.check_rows import data_sources


def group(config: DictConfig, settings: EkiplSettings) -> Iterator[str]:
    """Problems of N, G, the experts and the advantage. The numbers of the run are numbers."""
    rollout, kept = config.actor_rollout_ref.rollout, config.actor_rollout_ref.rollout.n
    candidates = settings.num_candidates
    if kept < 2:
        yield f"actor_rollout_ref.rollout.n={kept} is G, the answers kept per row; a group of fewer than 2 has no relative advantage. Set 2 or more."
    if kept > candidates:
        yield (
            f"actor_rollout_ref.rollout.n={kept} is larger than the {candidates} answers that each row gets "
            f"(ekipl.num_answers={settings.num_answers} from the policy and from each of {len(settings.experts)} experts, or as "
            "an expert's own num_answers says). Lower rollout.n or raise num_answers."
        )
    yield from _selection(config, settings)
    if not settings.experts:
        return
    if settings.ask.when in ("unsolved", "fraction", "never") and kept > settings.num_answers:
        yield (
            f"actor_rollout_ref.rollout.n={kept} is larger than the ekipl.num_answers={settings.num_answers} answers of a row "
            f"whose experts are not asked (ekipl.ask.when={settings.ask.when}). Lower rollout.n or raise num_answers."
        )
    sources = data_sources(config) if settings.ask.tasks else set()
    unknown = sorted(set(settings.ask.tasks) - sources)
    if unknown and sources:  # none: the files lie elsewhere, or are reported as missing
        yield (
            f"ekipl.ask.tasks names {', '.join(unknown)}, of which data.train_files hold no row. "
            f"They hold: {', '.join(sorted(sources))}."
        )
    if rollout.calculate_log_probs:
        yield "actor_rollout_ref.rollout.calculate_log_probs=True cannot work with experts: their tokens have no rollout log-probability. Set False."
    correction = config.algorithm.get("rollout_correction")
    if correction and correction.get("bypass_mode"):
        yield "algorithm.rollout_correction.bypass_mode=True takes rollout log-probabilities for old ones; expert tokens have none. Set False."
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        yield "reward.reward_model.enable=True without enable_resource_pool judges after the rollout, too late to choose. Set enable_resource_pool=True."


def _selection(config: DictConfig, settings: EkiplSettings) -> Iterator[str]:
    kept, n, advantage = config.actor_rollout_ref.rollout.n, settings.num_answers, settings.advantage
    if settings.select.rule == "unsolved_only" and kept > n:
        yield (
            f"ekipl.select.rule=unsolved_only keeps the policy's own answers where one is right, ekipl.num_answers={n}, which "
            f"cannot fill actor_rollout_ref.rollout.n={kept}. Lower rollout.n or raise num_answers."
        )
    if settings.select.min_policy > min(kept, n):
        yield f"ekipl.select.min_policy={settings.select.min_policy} is more than the {min(kept, n)} answers of the policy that a group can hold."
    if advantage.baseline == "policy_only" and n < 2:
        yield "ekipl.advantage.baseline=policy_only needs 2 or more answers of the policy for a mean. Raise ekipl.num_answers."
    if advantage.silent_groups == "resample" and settings.ask.ahead:
        yield "ekipl.ask.ahead=true cannot work with ekipl.advantage.silent_groups=resample: which rows come next depends on groups that are not judged yet. Set ahead=false."
    actor = config.actor_rollout_ref.actor
    batch = config.data.train_batch_size
    if settings.weights.mode == "luffy" and (actor.ppo_mini_batch_size, actor.ppo_epochs) != (batch, 1):
        yield (
            f"ekipl.weights.mode=luffy with actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size}, "
            f"ppo_epochs={actor.ppo_epochs} would shape later updates by the probabilities before the first. Set "
            f"data.train_batch_size={batch} and 1, one update a step."
        )
    loss_mode = actor.policy_loss.get("loss_mode", "vanilla")
    if not settings.learn.clip_on_experts and loss_mode != "vanilla":
        yield f"ekipl.learn.clip_on_experts=false takes PPO's clipping away, which actor_rollout_ref.actor.policy_loss.loss_mode={loss_mode} does in its own way. Set vanilla, or true."
    rollout = config.actor_rollout_ref.rollout
    sampling = (rollout.temperature, rollout.top_p, rollout.top_k)
    if settings.weights.needs_own and sampling != (1.0, 1.0, -1):
        yield f"ekipl.weights.mode={settings.weights.mode} compares policy and experts as they are: set actor_rollout_ref.rollout.temperature=1.0, top_p=1.0 and top_k=-1."
    if settings.weights.needs_all:
        yield from _scorers(settings)
    filters = config.algorithm.get("filter_groups")
    if filters and filters.enable and advantage.silent_groups != "resample":
        yield "algorithm.filter_groups.enable=True is verl's dynamic sampling, which looks at equal rewards. Set ekipl.advantage.silent_groups=resample, which uses it with the advantages that are really zero."


def _scorers(settings: EkiplSettings) -> Iterator[str]:
    """It costs nothing to find out before the run."""
    for expert in settings.experts:
        if expert.base_url is not None and not asyncio.run(can_score(expert)):
            yield Lacking(
                f"ekipl.weights.mode=mixture needs ekipl.experts[{expert.name}] to score everybody's answers, but "
                f"{expert.base_url} does not answer as vLLM does. Start the server, or set mixture_own."
            )
