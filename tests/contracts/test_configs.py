"""Every shipped config composes with verl's own and passes its own checks."""

import os
from pathlib import Path

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.checks import check, check_for_plan
from recipe.ekipl.compose import CONFIG_DIR, compose_config, other_method, save_resolved
from recipe.ekipl.plan import make_plan, render
from recipe.ekipl.train import main

pytestmark = pytest.mark.contract


EXPERTS = sorted(path.stem for path in (CONFIG_DIR / "experts").glob("*.yaml"))


@pytest.mark.parametrize("name", ["ekipl_tiny", "ekipl_trainer"])
@pytest.mark.parametrize("experts", EXPERTS)
def test_every_config_composes_and_passes_its_own_checks(composed, name, experts):
    config = composed(name, f"experts={experts}")
    settings = check(config)
    plan = make_plan(config, settings)
    assert plan.candidates_per_row == 8 * (1 + len(settings.experts))
    assert render(plan, settings)


@pytest.mark.parametrize("preset", sorted(path.stem for path in (CONFIG_DIR / "preset").glob("*.yaml")))
@pytest.mark.parametrize("engine", ["dp", "megatron"])
def test_every_preset_composes_with_every_engine_and_passes_the_checks(composed, preset, engine):
    check(composed("ekipl_trainer", "experts=paper", f"preset={preset}", f"model_engine={engine}"))


def test_every_config_has_a_test():
    """A new folder or file here needs one; those of `elsewhere` have theirs there."""
    here = {"ekipl_tiny.yaml", "ekipl_trainer.yaml", *(f"experts/{name}.yaml" for name in EXPERTS)}
    here |= {f"preset/{path.name}" for path in (CONFIG_DIR / "preset").glob("*.yaml")}
    elsewhere = {
        "ekipl_sft.yaml": "test_sft_config.py",
        "ekipl_sft_tiny.yaml": "test_sft_config.py",
        "ekipl_engine/dp.yaml": "test_configs.py",
        "ekipl_engine/megatron.yaml": "test_configs.py",
        "plugin/ekipl.yaml": "test_plug_in.py",
        "judge/ekipl.yaml": "test_plug_in.py",
    }
    found = {str(path.relative_to(CONFIG_DIR)) for path in CONFIG_DIR.rglob("*.yaml")}
    assert found == here | set(elsewhere)
    assert all((Path(__file__).parent / test).is_file() for test in elsewhere.values())


def test_it_composes_from_any_directory(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(composed("ekipl_trainer"))


def test_the_defaults_are_the_papers(composed):
    config = composed("ekipl_trainer")
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
    assert config.actor_rollout_ref.actor.optim.optimizer == "AdamW"


@pytest.mark.parametrize(
    ("task", "epochs"), [("visual_counting", 1), ("structure_perception", 5), ("spatial_transformation", 1)]
)
def test_epochs_are_the_papers_for_each_task(composed, rows, task, epochs):
    train = rows.parent / task / "train.rl.parquet"
    assert composed("ekipl_trainer", f"data.train_files={train}").trainer.total_epochs == epochs
    assert composed("ekipl_trainer", f"data.train_files={train}", "trainer.total_epochs=3").trainer.total_epochs == 3


def test_epochs_of_mixed_rows_and_of_tasks_of_ones_own_are_one(composed, rows, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    mixed = [rows.parent / task / "train.rl.parquet" for task in ("visual_counting", "structure_perception")]
    own = {"data_source": "my_lab/colours", "reward_model": {"ground_truth": "red"}}
    pq.write_table(pa.Table.from_pylist([own]), tmp_path / "own.parquet")
    for files in (mixed, [tmp_path / "own.parquet"]):
        named = ",".join(map(str, files))
        assert composed("ekipl_trainer", f"data.train_files=[{named}]").trainer.total_epochs == 1


def test_a_file_that_lacks_what_the_reward_needs_is_named(composed, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([{"prompt": "x"}]), tmp_path / "bare.parquet")
    with pytest.raises(SettingsError, match="lacks the columns data_source, reward_model"):
        check(composed("ekipl_trainer", f"data.train_files={tmp_path}/bare.parquet"))


@pytest.mark.parametrize(
    ("override", "says"),
    [("ekipl.run_dir=null", "is no folder"), ("data.train_files=3", "neither a parquet file nor a list")],
)
def test_a_path_that_is_none_is_refused_by_name(composed, override, says):
    with pytest.raises(SettingsError, match=f"{override.split('=')[0]}.*{says}"):
        composed("ekipl_trainer", override)


def test_a_plan_is_made_without_keys_and_packages_that_are_not_here_and_says_which(composed, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = composed("ekipl_trainer")
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        check(config)
    settings, lacking = check_for_plan(config)
    assert len(settings.experts) == 2 and "OPENAI_API_KEY" in " ".join(lacking)
    for refused in ("actor_rollout_ref.rollout.n=1", "data.train_files=/nowhere.parquet"):
        with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
            check_for_plan(composed("ekipl_trainer", refused))


def test_a_wider_baseline_chooses_our_estimator(composed):
    assert composed("ekipl_trainer", "ekipl.advantage.baseline=all").algorithm.adv_estimator == "ekipl"


def test_the_robust_preset_takes_the_baseline_over_all_candidates_and_single_settings_still_win(composed):
    robust = composed("ekipl_trainer", "experts=demo", "preset=robust").ekipl.advantage
    assert (robust.baseline, robust.std) == ("all", "all")
    mixed = composed("ekipl_trainer", "experts=demo", "preset=robust", "ekipl.advantage.std=none").ekipl.advantage
    assert (mixed.baseline, mixed.std) == ("all", "none")
    assert composed("ekipl_tiny", "preset=paper").algorithm.adv_estimator == "grpo"


def test_replacing_silent_groups_switches_verls_dynamic_sampling_on(composed):
    config = composed("ekipl_trainer", "experts=demo", "ekipl.advantage.silent_groups=resample")
    check(config)
    assert config.algorithm.filter_groups.enable


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("actor_rollout_ref.rollout.n=1", "no relative advantage"),
        ("actor_rollout_ref.rollout.n=25", "larger than the 24 answers"),
        ("actor_rollout_ref.rollout.calculate_log_probs=True", "no rollout log-probability"),
        ("data.train_batch_size=1000", "fewer than data.train_batch_size"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=3", "must divide"),
        ("data.train_files=/nowhere.parquet", "does not exist"),
        ("data.train_files=null", "data.train_files is not set"),
        ("data.val_files=[]", "data.val_files is not set"),
        (f"data.train_files={__file__}", "is no parquet file"),
        ("trainer.total_training_steps=0", "total_training_steps=0 must be a whole number, 1 or more"),
        ("trainer.total_training_steps=many", "total_training_steps='many' must be a whole number"),
        ("trainer.total_training_steps=5000", "verl ends with the epochs"),
        ("data.train_max_samples=2", "hold 2 rows, fewer than data.train_batch_size"),
        ("data.train_batch_size=many", "data.train_batch_size='many' must be a whole number"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=0", "ppo_mini_batch_size=0 must be a whole number, 1 or more"),
        ("actor_rollout_ref.rollout.n=null", "actor_rollout_ref.rollout.n=None must be a whole number"),
        ("actor_rollout_ref.model.path=/nowhere", "holds no config.json"),
        ("trainer.use_v1=False", "deprecated trainer"),
        ("trainer.v1.trainer_mode=separate_async", "under newer weights"),
        ("actor_rollout_ref.rollout.agent.agent_loop_manager_class=null", "no expert would be asked"),
        ("ekipl.num_answers=0", "1 or more"),
        ("reward.custom_reward_function.reward_kwargs.rules=mine", "reward_kwargs: reward options: rules='mine'"),
        ("+reward.custom_reward_function.reward_kwargs.strcture=exact", "Did you mean structure?"),
        ("ekipl.reward.spatial=greedy", "ekipl.reward: reward options: spatial='greedy'"),
        ("ekipl.reward.task_modules=[no_such_lab.rewards]", "no_such_lab.rewards cannot be imported"),
        ("+ekipl.ask.tasks={nonsense: never}", "hold no row. They hold: clevr_math"),
        ("ekipl.bounds.max_dollars=-1", "0 or more dollars"),
        (["ekipl.select.rule=unsolved_only", "ekipl.num_answers=4"], "cannot fill"),
        ("ekipl.select.min_policy=9", "more than the 8 answers of the policy"),
        (["ekipl.advantage.baseline=policy_only", "ekipl.num_answers=1"], "2 or more answers of the policy"),
        (["ekipl.advantage.silent_groups=resample", "ekipl.ask.ahead=true"], "Set ahead=false"),
        ("algorithm.filter_groups.enable=True", "silent_groups=resample"),
        ("ekipl.weights.mode=snis", "logprobs is false"),
        (["ekipl.weights.mode=luffy", "actor_rollout_ref.actor.ppo_mini_batch_size=2"], "before the first"),
        (["ekipl.weights.mode=luffy", "actor_rollout_ref.actor.ppo_epochs=2"], "before the first"),
        (["ekipl.weights.mode=snis", "actor_rollout_ref.rollout.temperature=0.7"], "temperature=1.0"),
        (["ekipl.weights.mode=snis", "actor_rollout_ref.rollout.top_p=0.9"], "top_p=1.0"),
        ("ekipl.advantage.baseline=all", "Set std=all or none"),
        ("algorithm.adv_estimator=rloo", "Set it to grpo"),
        ("algorithm.rollout_correction.bypass_mode=True", "expert tokens have none"),
        (["preset=robust", "algorithm.norm_adv_by_std_in_grpo=False"], "Set ekipl.advantage.std=none"),
        ("algorithm.use_kl_in_reward=True", "after answers were chosen"),
        ("trainer.logger=[console]", "has no `file`"),
        ("trainer.default_local_dir=/elsewhere", "Set ekipl.run_dir instead"),
        ("trainer.resume_mode=disable", "goes on in its own folder"),
        (
            ["ekipl.learn.clip_on_experts=false", "actor_rollout_ref.actor.policy_loss.loss_mode=gspo"],
            "policy_loss.loss_mode=gspo does in its own way",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(composed, override, says):
    with pytest.raises(SettingsError) as caught:
        check(composed("ekipl_trainer", "experts=demo", *([override] if isinstance(override, str) else override)))
    assert says in str(caught.value)


def test_rows_whose_truth_cannot_be_judged_are_named_before_anything_starts(composed, rows, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(rows / "train.rl.parquet").to_pylist()
    table[1]["reward_model"]["ground_truth"] = "three"
    table[3]["data_source"] = "imagenet"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "bad.parquet")
    with pytest.raises(SettingsError) as caught:
        check(composed("ekipl_trainer", "experts=demo", f"data.train_files={tmp_path}/bad.parquet"))
    message = str(caught.value)
    assert "2 of 12 rows cannot be judged" in message
    assert "row 1: a count must be a number, not 'three'" in message
    assert "row 3: no reward is known for data_source='imagenet'" in message


def test_rows_that_are_not_asked_must_fill_a_group_by_themselves(composed):
    overrides = ("experts=demo", "actor_rollout_ref.rollout.n=12", "ekipl.num_answers=6")
    check(composed("ekipl_trainer", *overrides))
    with pytest.raises(SettingsError, match="whose experts are not asked"):
        check(composed("ekipl_trainer", *overrides, "ekipl.ask.when=unsolved"))


def test_a_run_is_of_one_method(composed, tmp_path):
    save_resolved(composed("ekipl_trainer", "experts=demo"), tmp_path / "config.yaml")
    same = composed("ekipl_trainer", "experts=demo", "trainer.total_training_steps=9", "ekipl.bounds.max_dollars=3")
    assert other_method(tmp_path / "config.yaml", same) == []
    other = composed("ekipl_trainer", "experts=demo", "preset=robust", "actor_rollout_ref.rollout.n=4")
    found = " ".join(other_method(tmp_path / "config.yaml", other))
    assert "'baseline': 'all'" in found and "rollout.n=4" in found and "RUN=" in found
    assert other_method(tmp_path / "none.yaml", other) == []


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


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ekipl.nonsense=1", "Could not override 'ekipl.nonsense'"),
        ("ekipl.expert_timeout=5", "ekipl.expert_timeout is no setting. Did you mean ekipl.expert_timeout_s?"),
        ("data.train_bach_size=4", "Did you mean data.train_batch_size?"),
        ("experts=nobody", "Could not find 'experts/nobody'"),
    ],
)
def test_an_override_that_hydra_does_not_know_is_a_settings_error(override, says):
    with pytest.raises(SettingsError) as caught:
        compose_config("ekipl_trainer", [override])
    assert says in str(caught.value)
    assert "search path" not in str(caught.value)


def test_an_expert_file_in_a_folder_of_the_users_is_found_beside_ours(tmp_path):
    (tmp_path / "experts").mkdir()
    expert = "  experts:\n    - {name: my-lab, kind: openai, model: m, api_key_env: MY_LAB_KEY}\n"
    (tmp_path / "experts" / "my_lab.yaml").write_text(f"# @package _global_\nekipl:\n{expert}")
    searched = f"hydra.searchpath=[file://{tmp_path}]"
    assert compose_config("ekipl_trainer", [searched, "experts=my_lab"]).ekipl.experts[0].name == "my-lab"
    assert compose_config("ekipl_trainer", [searched, "experts=paper"]).ekipl.experts[0].name == "gpt-4o"


def test_no_key_is_in_the_resolved_config(composed, tmp_path):
    from recipe.ekipl.compose import save_resolved

    os.environ["OPENAI_API_KEY"] = "sk-canary-987654321"
    config = composed("ekipl_trainer", "experts=paper")
    os.environ["OPENAI_API_KEY"] = "sk-canary-987654321"
    save_resolved(config, tmp_path / "config.yaml")
    assert "canary" not in (tmp_path / "config.yaml").read_text()


def test_an_option_may_stand_between_overrides(capsys, monkeypatch):
    """run_ekipl_tiny.sh puts its own overrides first and whatever the user adds behind them."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert main(["--config-name", "ekipl_tiny", "experts=none", "--dry-run", "ekipl.num_answers=0"]) == 2
    assert "ekipl.num_answers=0 must be 1 or more" in capsys.readouterr().err


def test_gpus_that_are_not_here_are_told_with_all_else_before_anything_starts(composed, capsys, monkeypatch):
    config = composed("ekipl_trainer")
    monkeypatch.setattr(
        os, "environ", {k: v for k, v in os.environ.items() if k not in ("VERL_PLATFORM", "GEMINI_API_KEY")}
    )
    monkeypatch.setattr("recipe.ekipl.cpu.wanted", lambda: True)
    monkeypatch.setattr("recipe.ekipl.hardware.machine.local_gpus", lambda: ())
    files = [f"data.{key}={config.data[key][0]}" for key in ("train_files", "val_files")]
    words = [*files, f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path}", "data.train_batch_size=4"]
    assert main([*words, f"ekipl.run_dir={config.ekipl.run_dir}/run"]) == 2
    said = capsys.readouterr().err
    assert "8 GPUs are asked for and 0 found" in said and "GEMINI_API_KEY" in said and "flash-attn" in said
    assert not Path(config.ekipl.run_dir, "run").exists()
    assert main([*words, f"ekipl.run_dir={config.ekipl.run_dir}/run", "--dry-run"]) == 0
    assert "8 GPUs are asked for and 0 found" in capsys.readouterr().out
