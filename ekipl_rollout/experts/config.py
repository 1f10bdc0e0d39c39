"""Experts from a YAML file for the command line: one of recipe/ekipl/config/experts, a run's config.yaml, or your own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import EkiplSettings, ExpertSettings
from ekipl_rollout.settings.expert_problems import LOOKS_LIKE_A_KEY

SHIPPED = Path(__file__).parents[2] / "recipe" / "ekipl" / "config" / "experts"
"""Read as files: this package does not import the recipe. It lies beside it in a checkout and when installed."""

ELSEWHERE = {"data": {"max_response_length": 1024}, "ekipl": {"num_answers": 8, "experts": []}}
"""What the files of experts refer to, with the values of a plain run."""


@dataclass(frozen=True)
class ExpertsConfig:
    """What a file says about experts."""

    experts: tuple[ExpertSettings, ...]
    num_answers: int
    train_files: tuple[str, ...]
    """Rows to ask about, where the file is a run's."""


def load_experts(config: str, overrides: Sequence[str] = (), only: str | None = None) -> ExpertsConfig:
    """`config` is a path, or the name of a shipped file; `overrides` are key=value as on the command line of a run.

    Raises SettingsError for a file or value that cannot be read. Does not check keys: see ExpertSettings.problems.
    """
    try:
        merged = OmegaConf.merge(ELSEWHERE, _read(_find(config)))
        for override in overrides:
            key, _, value = override.partition("=")
            OmegaConf.update(merged, key.lstrip("+"), yaml.safe_load(value), force_add=True)
        experts = OmegaConf.to_container(merged.ekipl.experts, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError) as error:
        raise SettingsError(f"--config {config}: {LOOKS_LIKE_A_KEY.sub('[key]', str(error))}") from None
    settings = EkiplSettings.from_config({"experts": experts}, check=False)
    chosen = tuple(expert for expert in settings.experts if only in (None, expert.name))
    if offline := [expert.name for expert in chosen if expert.kind == "offline"]:
        raise SettingsError(
            f"--config {config}: {offline[0]} is offline; its answers are in the record, nobody is asked."
        )
    if not chosen:
        names = ", ".join(expert.name for expert in settings.experts) or "none"
        raise SettingsError(f"--config {config} has no expert{f' {only!r}' if only else ''}; it names {names}.")
    files: Any = merged.data.get("train_files") or ()
    return ExpertsConfig(chosen, int(merged.ekipl.num_answers), (files,) if isinstance(files, str) else tuple(files))


def _find(config: str) -> Path:
    for path in (Path(config).expanduser(), SHIPPED / f"{config}.yaml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
    raise SettingsError(f"--config {config} is neither a file nor one of {shipped or 'the shipped ones'}.")


def _read(path: Path) -> DictConfig:
    """The file over those that its Hydra `defaults` name in the same folder."""
    loaded = OmegaConf.load(path)
    if not isinstance(loaded, DictConfig):
        raise SettingsError(f"--config {path} is a {type(loaded).__name__}, not a block of settings.")
    below = [name for name in loaded.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    merged = OmegaConf.merge(*[_read(path.parent / f"{name}.yaml") for name in below], loaded)
    assert isinstance(merged, DictConfig)
    return merged
