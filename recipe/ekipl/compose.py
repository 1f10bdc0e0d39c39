"""Hydra config of a run: composed, made consistent, and checked. Needs neither a GPU nor Ray."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ekipl_rollout.errors import SettingsError
from recipe.ekipl import cpu

CONFIG_DIR = Path(__file__).parent / "config"


def verl_configs() -> str:
    """verl's own config folder as an override (Hydra takes a search path only from the primary config). By its place on
    disk and not as pkg://verl.trainer.config: that would import verl, ten seconds before a typo can be reported."""
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        raise SettingsError("verl is not installed here. Run `bash scripts/setup.sh`, or `pip install ekipl[train]`.")
    return f"hydra.searchpath=[file://{Path(found.submodule_search_locations[0], 'trainer', 'config')}]"


def compose_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The config as the user asked for it. Raises SettingsError for an override that Hydra cannot take."""
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            return compose(config_name, overrides=[verl_configs(), *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(
            f"--config-name {config_name} with {' '.join(overrides) or 'no overrides'}: {error}"
        ) from None


def make_consistent(config: DictConfig) -> DictConfig:
    """Fills in what follows from other settings, so that a user states each thing once."""
    with open_dict(config):
        config.ekipl.run_dir = str(Path(config.ekipl.run_dir).resolve())
        for key in ("train_files", "val_files"):
            files = config.data[key]
            names = [files] if isinstance(files, str) else list(files or [])
            config.data[key] = [str(Path(name).expanduser().resolve()) for name in names]
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


def save_resolved(config: DictConfig, path: Path) -> None:
    """The config with all interpolations resolved. It holds names of environment variables, never their values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(OmegaConf.to_yaml(config, resolve=True))
    partial.replace(path)
