"""Advantages beside verl's own: equal where they should be, and different where we say so."""

import random
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from ekipl_rollout.on_verl import advantage
from ekipl_rollout.on_verl.advantage import advantages
from ekipl_rollout.on_verl.trainer import TrainsOnGroups, make_ours
from ekipl_rollout.on_verl.weighing import _identity
from ekipl_rollout.settings import AdvantageSettings

pytestmark = pytest.mark.contract


def token_rewards(rewards: list[float], width: int = 5) -> torch.Tensor:
    """[B, T] with the reward on the last token, as verl puts it."""
    table = torch.zeros(len(rewards), width)
    table[:, -1] = torch.tensor(rewards)
    return table


def mixed_batch(seed: int) -> tuple[list[float], np.ndarray]:
    """Rows of groups of 1 to 8 answers with partial credit, shuffled as verl's balancing does."""
    rng = random.Random(seed)
    rows = [(rng.choice([0.0, 1.0, 1.25, 1.4, 2.0]), f"g{g}") for g in range(12) for _ in range(rng.randint(1, 8))]
    rng.shuffle(rows)
    return [reward for reward, _ in rows], np.array([uid for _, uid in rows], dtype=object)


@pytest.mark.parametrize("std", ["selected", "none"])
def test_over_the_kept_rows_our_advantages_are_verls_to_the_last_bit(std):
    for seed in range(50):
        rewards, uids = mixed_batch(seed)
        table, mask = token_rewards(rewards), torch.ones(len(rewards), 5)
        verls, _ = compute_grpo_outcome_advantage(table.clone(), mask, uids, norm_adv_by_std_in_grpo=std == "selected")
        ours = advantages(table.sum(-1), uids, {uid: {} for uid in uids}, AdvantageSettings("selected", std))
        assert torch.equal(ours, verls[:, 0])


def test_verl_itself_makes_an_advantage_out_of_rounding():
    """Why rows of silent groups are set to zero afterwards."""
    table = token_rewards([1.4] * 8)
    verls, _ = compute_grpo_outcome_advantage(table, torch.ones(8, 5), np.array(["g"] * 8, dtype=object))
    assert verls.abs().max() > 0.05


@pytest.mark.parametrize("scope", ["all", "policy_only"])
def test_a_wider_baseline_takes_the_statistics_that_the_worker_left(scope):
    groups = {"g": {"all": (0.5, 2.0), "policy_only": (0.25, 9.0)}}
    rewards, uids = torch.tensor([1.0, 0.0, 7.0]), np.array(["g", "g", "pad1"], dtype=object)
    result = advantages(rewards, uids, groups, AdvantageSettings(scope, "all"))
    mean = groups["g"][scope][0]
    assert torch.allclose(result, torch.tensor([(1 - mean) / 2, (0 - mean) / 2, 0.0]), atol=1e-5)


def test_what_a_failed_worker_had_written_of_a_group_is_not_learned_from_and_ends_nothing():
    groups, uids = {"g": {"all": (0.5, 2.0)}}, np.array(["g", "failed"], dtype=object)
    result = advantages(torch.ones(2), uids, groups, AdvantageSettings("all", "all"))
    assert result.tolist() == [pytest.approx(0.25), 0.0]


def test_a_sampler_that_is_not_ours_is_an_error_that_says_what_to_set(monkeypatch):
    monkeypatch.setattr(advantage, "_groups", None)
    with pytest.raises(RuntimeError, match="custom_sampler"):
        advantage.ekipl_advantage(torch.ones(1, 2), torch.ones(1, 2), index=np.array(["g"], dtype=object))


def test_a_row_is_known_by_its_key_and_padding_belongs_to_nobody():
    groups = {"u1": {}, "u2": {}}
    assert _identity("u2_0_0", {}, groups) == ("u2", "0")
    assert _identity("u1_11_0", {}, groups) == ("u1", "11")
    assert _identity("pad9_0_0", {"is_padding": True}, groups) == ("pad9", None)
    assert _identity("u1_3_0", {"is_padding": True}, groups) == ("u1", None)


def test_the_trainer_that_verl_has_made_becomes_ours():
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    theirs = get_trainer_cls("sync")
    trainer = object.__new__(theirs)
    for _ in range(2):
        make_ours(trainer)
        assert isinstance(trainer, TrainsOnGroups) and isinstance(trainer, theirs)
        assert type(trainer).__mro__.count(TrainsOnGroups) == 1
    assert type(trainer)._update_actor is TrainsOnGroups._update_actor
    assert not issubclass(theirs, TrainsOnGroups)


def test_mini_batches_without_signal_leave_the_model_alone():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    class Theirs(PPOTrainer):
        updated: ClassVar[list[list[str]]] = []

        def _update_actor(self, batch, metrics):
            self.updated.append(batch.keys)
            return batch

        def on_step_end(self): ...

        def on_sample_end(self): ...

    trainer = object.__new__(Theirs)
    make_ours(trainer)
    trainer.config = OmegaConf.create(
        {"actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 1, "shuffle": False}, "rollout": {"n": 2}}}
    )
    trainer.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": [0, 0]})
    batch = KVBatchMeta(partition_id="train", keys=list("abcdef"), tags=[{} for _ in range(6)])
    metrics: dict[str, float] = {}

    trainer._teaches = [False, True, False, False, True, True]
    assert trainer._update_actor(batch, metrics) is batch
    assert Theirs.updated == [["a", "b", "e", "f"]]
    assert metrics["ekipl/update/skipped"] == pytest.approx(1 / 3)

    trainer._teaches = [False] * 6
    assert trainer._update_actor(batch, metrics) is batch
    assert len(Theirs.updated) == 1 and metrics["ekipl/update/skipped"] == 1.0

    trainer.config.actor_rollout_ref.actor.shuffle = True
    trainer._teaches = [True] + [False] * 5
    trainer._update_actor(batch, metrics)
    assert Theirs.updated[1:] == [list("abcdef")], "who shares a mini-batch is not known here"

    trainer.skips_silent = False
    trainer._teaches = [False] * 6
    trainer._update_actor(batch, metrics)
    assert len(Theirs.updated) == 3 and metrics["ekipl/update/skipped"] == 0.0
