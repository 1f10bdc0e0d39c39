"""Everything that can be known to fail is known before Ray starts, and all of it is said at once.

Each problem names the key, its value, why it cannot work and the way out. Here: versions, the places where verl lets us in, numbers;
check_rows.py: rows and how they are judged; check_group.py: what a group is made of.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ekipl_rollout.errors import Lacking, SettingsError
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl import check_group, check_rows, cpu
from recipe.ekipl.check_rows import file_problem
from recipe.ekipl.data.questions import count_rows
from recipe.ekipl.megatron import checks as megatron

VERL = "0.9.1"
MANAGER = "ekipl_rollout.on_verl.worker.EkiplManager"
OUR_SAMPLER = "pkg://ekipl_rollout.on_verl.sampler"
COUNTS = (
    "data.train_batch_size",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.rollout.n",
    "trainer.total_epochs",
)


def check(config: DictConfig) -> EkiplSettings:
    """The checked settings. Raises SettingsError with every problem that was found."""
    ours = (_versions, _kernels, _seams, _counts, _batch, _run_folder)
    return _check(config, (*ours, check_rows.reward, check_rows.files, megatron.problems))


def check_for_plan(config: DictConfig) -> tuple[EkiplSettings, list[str]]:
    """The settings, and what this machine lacks to run them. Raises SettingsError for settings that cannot work, and where
    there are no rows to plan with."""
    try:
        return check(config), []
    except SettingsError as error:
        files = [*config.data.train_files, *config.data.val_files]
        if any(not isinstance(p, Lacking) for p in error.problems) or not all(Path(name).is_file() for name in files):
            raise
        settings = EkiplSettings.from_config(OmegaConf.to_container(config.ekipl, resolve=True), check=False)
        return settings, list(error.problems)


def check_plug_in(config: DictConfig) -> EkiplSettings:
    """Likewise for a run whose model, data and batch are the user's own, wherever they lie: only what concerns us."""
    return _check(config, (_versions, _seams, check_rows.reward, megatron.problems_of_ours))


def _check(config: DictConfig, looks: tuple[Callable[[DictConfig], Iterator[str]], ...]) -> EkiplSettings:
    problems: list[str] = []
    settings = None
    try:
        settings = EkiplSettings.from_config(OmegaConf.to_container(config.ekipl, resolve=True), check=False)
        problems += settings.problems()
    except SettingsError as error:  # a misspelled key or a wrong type
        problems += error.problems
    for look in looks:
        problems += look(config)
    if settings is not None and not list(_counts(config)):
        problems += check_group.group(config, settings)
    if problems or settings is None:
        raise SettingsError(*problems)
    return settings


def _versions(config: DictConfig) -> Iterator[str]:
    try:
        found = version("verl")
    except PackageNotFoundError:
        found = "not installed"
    if found != VERL:
        yield Lacking(
            f"verl is {found}; this recipe hangs on names of verl {VERL}. Install it: pip install 'verl[verl-core]=={VERL}'."
        )


def _kernels(config: DictConfig) -> Iterator[str]:
    """verl's default attention exists in flash-attn only; without it a worker fails minutes later, when the model loads."""
    model = config.actor_rollout_ref.model
    on_fsdp = config.actor_rollout_ref.actor.strategy != "megatron"  # which has TransformerEngine's
    if cpu.is_selected() or not on_fsdp or find_spec("flash_attn") is not None:
        return
    attention = (model.get("override_config") or {}).get("attn_implementation", "flash_attention_2")
    if model.use_remove_padding or attention == "flash_attention_2":
        yield Lacking(
            f"flash-attn is not installed, but actor_rollout_ref.model.use_remove_padding={model.use_remove_padding} and "
            f"override_config.attn_implementation={attention} need it. Install it: pip install flash-attn --no-build-isolation. "
            "Or set use_remove_padding=False and +actor_rollout_ref.model.override_config.attn_implementation=sdpa, which is "
            "slower and rounds log-probs to bfloat16 (docs/gpu.md)."
        )


def _seams(config: DictConfig) -> Iterator[str]:
    if not config.trainer.use_v1:
        yield "trainer.use_v1=False is verl's deprecated trainer, which has no place for experts. Set trainer.use_v1=True."
    mode = config.trainer.v1.trainer_mode
    if mode != "sync":
        yield (
            f"trainer.v1.trainer_mode={mode} is not supported: verl's asynchronous modes interrupt a policy's answer and go on "
            "with it under newer weights, while experts are asked, judged and kept by the group; what that does to a group "
            "has not been tried. Set sync."
        )
    manager = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
    if manager != MANAGER:
        yield f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={manager} is not ours, so no expert would be asked. Set {MANAGER}."
    estimator, sampler = config.algorithm.adv_estimator, config.trainer.v1.sampler.custom_sampler.path
    if estimator == "ekipl" and sampler != OUR_SAMPLER:
        yield f"algorithm.adv_estimator=ekipl needs our sampler, but trainer.v1.sampler.custom_sampler.path={sampler}. Set {OUR_SAMPLER}."
    if config.ekipl.ask.get("ahead") and sampler != OUR_SAMPLER:
        yield f"ekipl.ask.ahead=true finds the next rows through our sampler, but trainer.v1.sampler.custom_sampler.path={sampler}. Set {OUR_SAMPLER}, or ahead=false."
    if estimator not in ("grpo", "ekipl"):
        yield f"algorithm.adv_estimator={estimator} computes other advantages than Eq. 1, by which ekipl.advantage tells the groups that teach nothing. Set it to grpo."
    if estimator == "ekipl" and not config.algorithm.get("norm_adv_by_std_in_grpo", True):
        yield "algorithm.norm_adv_by_std_in_grpo=False is read by verl's own GRPO only. Set ekipl.advantage.std=none."
    if config.algorithm.use_kl_in_reward:
        yield "algorithm.use_kl_in_reward=True changes rewards after answers were chosen and groups judged by them. Set it to False, and actor_rollout_ref.actor.use_kl_loss=True."


def _run_folder(config: DictConfig) -> Iterator[str]:
    """What our files, the report and going on depend on (run_files.py)."""
    trainer, folder = config.trainer, Path(config.ekipl.run_dir) / "checkpoints"
    if "file" not in trainer.logger:
        yield f"trainer.logger={list(trainer.logger)} has no `file`, from which progress, metrics.jsonl and the report are made. Add it."
    if Path(trainer.default_local_dir).absolute() != folder.absolute():
        yield f"trainer.default_local_dir={trainer.default_local_dir} is not {folder}, where a run looks for what it goes on from. Set ekipl.run_dir instead."
    if trainer.resume_mode != "auto":
        yield f"trainer.resume_mode={trainer.resume_mode}: a run goes on in its own folder. Set auto, and another ekipl.run_dir to begin anew."


def _counts(config: DictConfig) -> Iterator[str]:
    """Numbers that other checks and the plan calculate with."""
    for key in COUNTS:
        value = OmegaConf.select(config, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield f"{key}={value!r} must be a whole number, 1 or more."
    steps = config.trainer.total_training_steps
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        yield f"trainer.total_training_steps={steps!r} must be a whole number, 1 or more; null is as many as there are in the epochs."


def _batch(config: DictConfig) -> Iterator[str]:
    if list(_counts(config)):
        return
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    readable = [name for name in config.data.train_files if not file_problem(name)]
    rows = count_rows(readable)
    if 0 < (most := config.data.get("train_max_samples", -1)) < rows:
        rows = most
    if readable and rows < batch:
        yield f"data.train_files hold {rows} rows, fewer than data.train_batch_size={batch}: there would be no step. Lower the batch or add rows."
    steps, epochs = config.trainer.total_training_steps, config.trainer.total_epochs
    if steps and rows >= batch and steps > rows // batch * epochs:
        yield (
            f"trainer.total_training_steps={steps} is more than trainer.total_epochs={epochs} of {rows // batch} steps hold; verl ends with "
            f"the epochs, without a last checkpoint. Set trainer.total_epochs={-(-steps // (rows // batch))}."
        )
    if mini > batch or batch % mini:
        yield f"actor_rollout_ref.actor.ppo_mini_batch_size={mini} must divide data.train_batch_size={batch}. Set both alike for one update a step."
