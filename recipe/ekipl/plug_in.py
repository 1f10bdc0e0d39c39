"""Experts in the groups of somebody's own `python -m verl.trainer.main_ppo` (docs/plug_in.md).

config/plugin/ekipl.yaml sets `PlugIn` as a Hydra callback. Hydra calls it in the user's own process when the config is
composed and before verl sees it: what cannot work is said there, in a second, and nothing has been started yet.
"""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.check_rows import OUR_REWARD
from recipe.ekipl.checks import check_plug_in
from recipe.ekipl.compose import choose_algorithm

TRIED_LOOPS = ("single_turn_agent", "tool_agent")


class PlugIn(Callback):
    """Checks the config and fills in what follows from it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Ends the process when experts cannot join; Hydra makes a warning of every other exception."""
        try:
            settings = prepare(config)
        except SettingsError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except Exception:
            traceback.print_exc()
            raise SystemExit("error: the ekipl plug-in failed on this config; the run was not started.") from None
        print(f"ekipl: {describe(config, settings)}", flush=True)
        for warning in warnings(config, settings):
            print(f"ekipl: warning: {warning}", file=sys.stderr, flush=True)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        raise SystemExit("error: the ekipl plug-in checks one run at a time; start each without --multirun.")


def prepare(config: DictConfig) -> EkiplSettings:
    """Changes `config` in place; verl gets it that way. Raises SettingsError with all problems at once."""
    with open_dict(config):
        config.ekipl.run_dir = str(Path(config.ekipl.run_dir).resolve())  # workers may have another working folder
        choose_algorithm(config)
        ask_in_their_format(config)
    return check_plug_in(config)


def ask_in_their_format(config: DictConfig) -> None:
    """In place: where another reward function than ours judges, experts get the user's prompt as it is. They would be told
    to answer in our reward's tags otherwise."""
    if not we_judge(config):
        for expert in config.ekipl.experts or []:
            expert.setdefault("instruction", None)


def we_judge(config: DictConfig) -> bool:
    """True with our reward function (+judge=ekipl)."""
    return OmegaConf.select(config, "reward.custom_reward_function.path") == OUR_REWARD


def describe(config: DictConfig, settings: EkiplSettings) -> str:
    """One line for people: who joins, what is kept, where it is written."""
    experts = ", ".join(f"{e.name} ({e.kind}: {e.model})" for e in settings.experts) or "no expert: plain GRPO"
    kept = config.actor_rollout_ref.rollout.n
    return f"{experts}; of {settings.num_candidates} candidates a row the best {kept} are kept; {settings.run_dir}"


def warnings(config: DictConfig, settings: EkiplSettings) -> Iterator[str]:
    """What will not stop the run but should be known before it."""
    loop = config.actor_rollout_ref.rollout.agent.get("default_agent_loop")
    if settings.experts and loop not in TRIED_LOOPS:
        yield (
            f"experts were not tried beside the agent loop {loop!r} ({', '.join(TRIED_LOOPS)} were): an expert's answer is one "
            "turn after the first prompt of the row's first session."
        )
    format_weight = config.ekipl.reward.format_weight
    if settings.experts and loop == "tool_agent" and we_judge(config) and format_weight:
        yield (
            f"ekipl.reward.format_weight={format_weight} is lost by every answer with a tool call, which does not begin with "
            "<think>, and never by an expert's: experts would win for their form. Set ekipl.reward.format_weight=0."
        )
    for expert in settings.experts:
        yield from expert.warnings()
