"""Everything that can be known to fail is known before Ray starts, and all of it is said at once.

Each problem names the key, its value, why it cannot work and the way out.
"""

import asyncio
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from ekipl_reward import OptionError, RewardError, check_truth, symbolic
from ekipl_reward.options import read_options
from ekipl_rollout.errors import Lacking, SettingsError
from ekipl_rollout.experts.score import can_score
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl import cpu
from recipe.ekipl.data.questions import count_rows
from recipe.ekipl.megatron import checks as megatron
from recipe.ekipl.plan import count_by_source

VERL = "0.9.1"
MANAGER = "ekipl_rollout.on_verl.worker.EkiplManager"
OUR_REWARD, OUR_SAMPLER = "pkg://ekipl_reward", "pkg://ekipl_rollout.on_verl.sampler"
BAD_ROWS_SHOWN = 5
COLUMNS = ("data_source", "reward_model")
COUNTS = (
    "data.train_batch_size",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.rollout.n",
    "trainer.total_epochs",
)


def check(config: DictConfig) -> EkiplSettings:
    """The checked settings. Raises SettingsError with every problem that was found."""
    looks = (_versions, _kernels, _seams, _counts, _batch, _reward, _files, _run_folder, megatron.problems)
    return _check(config, looks)


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
    return _check(config, (_versions, _seams, _reward, megatron.problems_of_ours))


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
        problems += _group(config, settings)
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


def _reward(config: DictConfig) -> Iterator[str]:
    function = config.reward.custom_reward_function
    if function.path != OUR_REWARD:
        return
    said = set()
    for at, block in (
        ("ekipl.reward", config.ekipl.get("reward")),
        ("reward.custom_reward_function.reward_kwargs", function.get("reward_kwargs")),
    ):
        try:
            read_options(**_plain(block))
        except OptionError as error:
            if str(error) not in said:
                yield f"{at}: {error}"
            said.add(str(error))
    if problem := symbolic.installation_problem():
        yield Lacking(f"reward.custom_reward_function.path={OUR_REWARD}: {problem}")


def _plain(block: DictConfig | None) -> dict[str, Any]:
    return {} if block is None else cast("dict[str, Any]", OmegaConf.to_container(block, resolve=True))


def _group(config: DictConfig, settings: EkiplSettings) -> Iterator[str]:
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
    if settings.ask.when != "always" and kept > settings.num_answers:
        yield (
            f"actor_rollout_ref.rollout.n={kept} is larger than the ekipl.num_answers={settings.num_answers} answers of a row "
            f"whose experts are not asked (ekipl.ask.when={settings.ask.when}). Lower rollout.n or raise num_answers."
        )
    sources = _data_sources(config) if settings.ask.tasks else set()
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


def _data_sources(config: DictConfig) -> set[str]:
    named = config.data.train_files
    names = [named] if isinstance(named, str) else named or []
    return set(count_by_source([name for name in names if not file_problem(name)]))


def _files(config: DictConfig) -> Iterator[str]:
    for key in ("train_files", "val_files"):
        if not config.data[key]:
            yield f"data.{key} is not set. Give parquet files that `python -m recipe.ekipl.data` made: data.{key}=rows/...parquet."
        for name in config.data[key]:
            if problem := file_problem(name):
                yield (str if Path(name).is_file() else Lacking)(f"data.{key}: {name} {problem}")
            else:
                yield from _rows(f"data.{key}: {name}", Path(name), config)
    model = str(config.actor_rollout_ref.model.path)
    if model.startswith(("/", "./", "../", "~")) and not (Path(model).expanduser() / "config.json").is_file():
        yield Lacking(
            f"actor_rollout_ref.model.path={model} holds no config.json. Give a Hugging Face folder or the name of a model."
        )


def file_problem(name: str) -> str:
    """Why a file of rows cannot be read, and the way out; "" when it can."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(name).is_file():
        return "does not exist. Make it with `python -m recipe.ekipl.data`."
    try:
        columns = pq.read_schema(name).names
    except (OSError, pa.ArrowException) as error:
        return f"is no parquet file ({error}). Convert yours with `python -m recipe.ekipl.data own`."
    missing = [column for column in COLUMNS if column not in columns]
    return f"lacks the columns {', '.join(missing)}. Make it with `python -m recipe.ekipl.data`." if missing else ""


def _rows(at: str, path: Path, config: DictConfig) -> Iterator[str]:
    """A truth in each row that our reward can judge against."""
    import pyarrow.parquet as pq

    function = config.reward.custom_reward_function
    if function.path != OUR_REWARD:
        return
    rules = _plain(function.get("reward_kwargs")).get("rules", "paper")
    table = pq.read_table(path, columns=["data_source", "reward_model"]).to_pylist()
    bad = []
    for index, row in enumerate(table):
        try:
            check_truth(row["data_source"], (row["reward_model"] or {}).get("ground_truth"), rules)
        except RewardError as error:
            bad.append(f"row {index}: {error}")
    if bad:
        yield f"{at}: {len(bad)} of {len(table)} rows cannot be judged: " + "; ".join(bad[:BAD_ROWS_SHOWN])
