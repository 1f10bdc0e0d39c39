"""Hydra config of a run: composed, made consistent, and checked. Needs neither a GPU nor Ray."""

import difflib
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ekipl_reward import UnknownTaskError, task_of
from ekipl_rollout.errors import SettingsError
from recipe.ekipl import cpu
from recipe.ekipl.check_rows import file_problem
from recipe.ekipl.plan import count_by_source

CONFIG_DIR = Path(__file__).parent / "config"
OF_THE_METHOD = (
    *(f"ekipl.{name}" for name in ("num_answers", "select", "advantage", "weights", "learn")),
    *(f"actor_rollout_ref.{name}" for name in ("rollout.n", "model.path")),
    *("data.train_files", "data.train_batch_size"),
)
PAPERS_EPOCHS = {"structure_perception": 5}
"""Of the paper's training (section 4.1); 1 for every other task."""


def verl_configs(overrides: Sequence[str] = ()) -> list[str]:
    """`overrides` with verl's own config folder beside the folders of the user's hydra.searchpath (Hydra takes one only from
    the primary config or an override). By its place on disk and not as pkg://verl.trainer.config: that would import verl, ten
    seconds before a typo can be reported."""
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        raise SettingsError(
            "verl is not installed here. Run `bash scripts/setup.sh`, or `pip install '.[train]'` in the clone."
        )
    verls = f"file://{Path(found.submodule_search_locations[0], 'trainer', 'config')}"
    users = [word.partition("=")[2].strip("[] ") for word in overrides if word.startswith("hydra.searchpath=")]
    others = [word for word in overrides if not word.startswith("hydra.searchpath=")]
    return [f"hydra.searchpath=[{','.join(filter(None, [verls, *users]))}]", *others]


def compose_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The config as the user asked for it. Raises SettingsError for an override that Hydra cannot take."""
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            return compose(config_name, overrides=verl_configs(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(f"--config-name {config_name}: {_explained(error, config_name)}") from None


def _explained(error: Exception, config_name: str) -> str:
    """Hydra's words without its search path; for a key that is none, the one that was probably meant."""
    text = str(error).partition("\nConfig search path")[0].strip()
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown is None:
        return text
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        known = _keys(OmegaConf.to_container(compose(config_name, overrides=verl_configs())))
    near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.8)  # the blocks before it are alike anyway
    return f"{unknown[1]} is no setting. Did you mean {near[0]}?" if near else text


def _keys(block: Any, at: str = "") -> list[str]:
    """Every key as an override names it."""
    if not isinstance(block, dict):
        return [at]
    return [key for name, value in block.items() for key in _keys(value, f"{at}.{name}" if at else str(name))]


def make_consistent(config: DictConfig) -> DictConfig:
    """Fills in what follows from other settings, so that a user states each thing once. Raises SettingsError for paths that are
    none."""
    if not isinstance(config.ekipl.run_dir, str):
        raise SettingsError(
            f"ekipl.run_dir={config.ekipl.run_dir!r} is no folder. Everything a run leaves behind goes there."
        )
    with open_dict(config):
        config.ekipl.run_dir = str(Path(config.ekipl.run_dir).resolve())
        for key in ("train_files", "val_files"):
            files = config.data[key]
            if not (files is None or isinstance(files, str) or OmegaConf.is_list(files)):
                raise SettingsError(f"data.{key}={files!r} is neither a parquet file nor a list of them.")
            names = [files] if isinstance(files, str) else list(files or [])
            config.data[key] = [str(Path(name).expanduser().resolve()) for name in names]
        if config.trainer.total_epochs is None:
            config.trainer.total_epochs = papers_epochs(config.data.train_files)
        choose_algorithm(config)
        runtime_env = config.ray_kwargs.ray_init.get("runtime_env") or {}
        platform = cpu.environment() if cpu.is_selected() else {}
        env_vars = {**runtime_env.get("env_vars", {}), **platform}
        config.ray_kwargs.ray_init.runtime_env = {**runtime_env, "env_vars": env_vars}
    return config


def choose_algorithm(config: DictConfig) -> None:
    """verl's settings that follow from ekipl.advantage, in place: verl's GRPO knows the kept rows only."""
    advantage = config.ekipl.advantage
    if config.algorithm.adv_estimator == "grpo" and (advantage.baseline, advantage.std) != ("selected", "selected"):
        config.algorithm.adv_estimator = "ekipl"
    if advantage.get("silent_groups") == "resample":  # verl's own dynamic sampling, by our idea of a silent group
        config.algorithm.filter_groups.update(enable=True, metric="reward")


def papers_epochs(files: Sequence[str]) -> int:
    """The paper's number where all rows are of one of its tasks, else 1."""
    sources = count_by_source([name for name in files if not file_problem(name)])
    try:
        epochs = {PAPERS_EPOCHS.get(task_of(source), 1) for source in sources}
    except UnknownTaskError:
        return 1
    return epochs.pop() if len(epochs) == 1 else 1


def other_method(
    saved: Path, config: DictConfig, keys: Sequence[str] = OF_THE_METHOD, folder: str = "ekipl.run_dir"
) -> list[str]:
    """What of `config` would make another method of the run whose config lies at `saved`: half of each would be reported as
    one. Steps, budgets, experts' addresses and the like may change on the way. `folder`: the setting that names the run's."""
    if not saved.exists():
        return []
    before = OmegaConf.load(saved)
    return [
        f"{key}={_shown(config, key)}, but the run in {_shown(config, folder)} was begun with {_shown(before, key)}. A run is of one "
        f"method: give this one another folder ({folder}=..., or RUN=... before a script), or delete that one."
        for key in keys
        if _shown(config, key) != _shown(before, key)
    ]


def _shown(config: Any, key: str) -> str:
    value = OmegaConf.select(config, key)
    return str(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)


def save_resolved(config: DictConfig, path: Path) -> None:
    """The config with all interpolations resolved. It holds names of environment variables, never their values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(OmegaConf.to_yaml(config, resolve=True))
    partial.replace(path)
