"""Our loss as verl's workers get it: made in the trainer's process from the run's configuration, and sent there."""

import pickle

import cloudpickle
import pytest

from ekipl_rollout.on_verl.loss import ekipl_loss
from ekipl_rollout.on_verl.trainer import make_ours
from recipe.ekipl.compose import compose_config

pytestmark = pytest.mark.contract


class Workers:
    def __init__(self):
        self.loss = None

    def set_loss_fn(self, loss_fn):
        self.loss = pickle.loads(cloudpickle.dumps(loss_fn))


def trainer(monkeypatch, *overrides):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer, get_trainer_cls

    monkeypatch.setattr(PPOTrainer, "init", lambda self: None)
    ours = object.__new__(get_trainer_cls("sync"))
    make_ours(ours)
    ours.config = compose_config("ekipl_tiny", ["ekipl.run_dir=runs/x", *overrides])
    ours.actor_rollout_wg = Workers()
    ours.init()
    return ours


def test_the_loss_reaches_the_workers_with_the_actors_own_settings(monkeypatch):
    ours = trainer(monkeypatch, "ekipl.learn.kl_on_experts=false", "actor_rollout_ref.actor.clip_ratio=0.17")
    loss = ours.actor_rollout_wg.loss
    assert loss.func is ekipl_loss
    config, learn = loss.args
    assert (config.clip_ratio, config.kl_loss_coef, learn.kl_on_experts) == (0.17, 0.005, False)
    config.global_batch_info["dp_size"] = 1  # verl's loss writes there


def test_verls_own_loss_stays_where_nothing_of_ours_is_wanted(monkeypatch):
    assert trainer(monkeypatch, "ekipl.weights.mode=luffy").actor_rollout_wg.loss is None
