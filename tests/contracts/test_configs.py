"""Every shipped config composes with verl's own and passes its own checks."""

import os

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.checks import check
from recipe.ekipl.compose import CONFIG_DIR, compose_config, make_consistent
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import TASKS
from recipe.ekipl.plan import make_plan, render

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def rows(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    convert(world, out, list(TASKS), "plain")
    return out / "visual_counting"


@pytest.fixture
def composed(rows, tmp_path, monkeypatch):
    """composed(name, *overrides) with data and model that exist."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456")
    monkeypatch.setenv("GEMINI_API_KEY", "test-0123456")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "records.sqlite").touch()

    def make(name, *overrides):
        files = [
            f"data.train_files={rows}/train.rl.parquet",
            f"data.val_files={rows}/clevr_math.rl.parquet",
            f"actor_rollout_ref.model.path={tmp_path}",
            f"ekipl.run_dir={tmp_path}",
            "data.train_batch_size=4",
        ]
        return make_consistent(compose_config(name, [*files, *overrides]))

    return make


EXPERTS = sorted(path.stem for path in (CONFIG_DIR / "experts").glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIR.glob("*.yaml")))
@pytest.mark.parametrize("experts", EXPERTS)
def test_every_config_composes_and_passes_its_own_checks(composed, name, experts):
    config = composed(name, f"experts={experts}")
    settings = check(config)
    plan = make_plan(config, settings)
    assert plan.candidates_per_row == 8 * (1 + len(settings.experts))
    assert render(plan, settings)


def test_it_composes_from_any_directory(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(composed("ekipl_trainer"))


def test_the_defaults_are_the_papers(composed):
    config = composed("ekipl_trainer", "experts=paper")
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.ekipl.num_answers, rollout.n, len(config.ekipl.experts)) == (8, 8, 2)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.optim.lr, actor.optim.lr_scheduler_type) == (
        True,
        0.005,
        5e-7,
        "cosine",
    )
    assert (rollout.temperature, config.algorithm.adv_estimator) == (1.0, "grpo")
    assert (config.ekipl.advantage.baseline, config.ekipl.advantage.std) == ("selected", "selected")


def test_a_wider_baseline_chooses_our_estimator(composed):
    assert composed("ekipl_trainer", "ekipl.advantage.baseline=all").algorithm.adv_estimator == "ekipl"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("actor_rollout_ref.rollout.n=1", "no relative advantage"),
        ("actor_rollout_ref.rollout.n=25", "larger than the 24 answers"),
        ("actor_rollout_ref.rollout.calculate_log_probs=True", "no rollout log-probability"),
        ("data.train_batch_size=1000", "fewer than data.train_batch_size"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=3", "must divide"),
        ("data.train_files=/nowhere.parquet", "does not exist"),
        ("actor_rollout_ref.model.path=/nowhere", "holds no config.json"),
        ("trainer.use_v1=False", "deprecated trainer"),
        ("trainer.v1.trainer_mode=separate_async", "not supported yet"),
        ("actor_rollout_ref.rollout.agent.agent_loop_manager_class=null", "no expert would be asked"),
        ("ekipl.num_answers=0", "1 or more"),
        ("+reward.custom_reward_function.reward_kwargs.rules=mine", "paper, released"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(composed, override, says):
    with pytest.raises(SettingsError) as caught:
        check(composed("ekipl_trainer", "experts=demo", override))
    assert says in str(caught.value)


def test_all_problems_come_at_once(composed):
    with pytest.raises(SettingsError) as caught:
        check(
            composed(
                "ekipl_trainer",
                "experts=demo",
                "actor_rollout_ref.rollout.n=1",
                "data.train_files=/nowhere.parquet",
                "ekipl.num_answers=0",
            )
        )
    assert len(caught.value.problems) >= 3


def test_an_override_that_hydra_does_not_know_is_a_settings_error():
    with pytest.raises(SettingsError, match="nonsense"):
        compose_config("ekipl_trainer", ["ekipl.nonsense=1"])


def test_no_key_is_in_the_resolved_config(composed, tmp_path):
    from recipe.ekipl.compose import save_resolved

    os.environ["OPENAI_API_KEY"] = "sk-canary-987654321"
    config = composed("ekipl_trainer", "experts=paper")
    os.environ["OPENAI_API_KEY"] = "sk-canary-987654321"
    save_resolved(config, tmp_path / "config.yaml")
    assert "canary" not in (tmp_path / "config.yaml").read_text()
