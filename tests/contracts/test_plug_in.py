"""The plug-in beside verl's own main, without training: what the config becomes, and what is refused."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl import cpu

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
SEARCH = "hydra.searchpath=[pkg://recipe.ekipl.config]"
N, GRPO = "actor_rollout_ref.rollout.n=4", "algorithm.adv_estimator=grpo"
PLUG_IN = [SEARCH, "+plugin=ekipl", "experts=demo", GRPO]
VERL_CONFIGS = str(Path(importlib.util.find_spec("verl").submodule_search_locations[0], "trainer", "config"))


def python(folder, *words, on_cpu=True):
    """Python in a process of its own; `on_cpu=False` as on a machine with a GPU, where nothing of ours is named."""
    platform = cpu.environment()
    environment = {name: value for name, value in os.environ.items() if name not in platform}
    environment |= {**(platform if on_cpu else {}), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=600)


def main_ppo(folder, *words, **how):
    """verl's main; stderr has the modules that were imported."""
    return python(folder, "-X", "importtime", "-m", "verl.trainer.main_ppo", *words, **how)


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """composed(words) -> the config that verl's main would get from Hydra, callbacks and all."""
    monkeypatch.chdir(tmp_path)

    def start(*words):
        got = []
        monkeypatch.setattr(sys, "argv", ["main_ppo.py", *words])
        hydra.main(config_path=VERL_CONFIGS, config_name="ppo_trainer", version_base=None)(got.append)()
        return got[0]

    return start


def leaves(config, at=""):
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


@pytest.mark.parametrize("on_cpu", [True, False])
def test_without_the_plug_in_nothing_of_ours_is_in_the_config_or_the_process(tmp_path, on_cpu):
    """Of the process that is started; tests/e2e/test_plug_in.py looks into the others, too."""
    run = main_ppo(tmp_path, N, "--cfg", "job", on_cpu=on_cpu)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "ekipl" not in run.stdout
    imported = [line.split("|")[-1].strip() for line in run.stderr.splitlines() if line.startswith("import time:")]
    ours = {name for name in imported if name.startswith(("recipe.ekipl.", "ekipl_r"))}
    assert "verl.trainer" in imported
    assert all(name.startswith("recipe.ekipl.cpu") for name in ours), "the CPU platform, which this machine needs"
    assert bool(ours) is on_cpu


def test_the_entry_point_for_vllm_does_nothing_where_no_cpu_was_chosen(tmp_path):
    load = "import sys, vllm.plugins; vllm.plugins.load_general_plugins()"
    show = "print(*sorted(name for name in sys.modules if name.startswith(('recipe', 'ekipl_'))))"
    run = python(tmp_path, "-c", f"{load}; {show}", on_cpu=False)
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = run.stdout.splitlines()[-1].split()
    assert loaded == ["recipe", "recipe.ekipl", "recipe.ekipl.cpu", "recipe.ekipl.cpu.vllm_plugin"]


@pytest.mark.parametrize("engine", ["dp", "megatron"])
def test_the_plug_in_adds_its_block_and_changes_nothing_but_its_seams(composed, engine):
    plain, plugged = (
        dict(leaves(OmegaConf.to_container(composed(N, f"model_engine={engine}", *words), resolve=True)))
        for words in ([GRPO], PLUG_IN)
    )
    ours = ("ekipl.", "trainer.v1.sampler.sampler_kwargs")
    changed = {key for key in plain | plugged if plain.get(key) != plugged.get(key) and not key.startswith(ours)}
    assert changed == {
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
        "actor_rollout_ref.rollout.calculate_log_probs",
        "trainer.v1.sampler.custom_sampler.path",
        "trainer.v1.sampler.custom_sampler.name",
    }
    assert plugged["ekipl.num_answers"] == 4


def test_what_follows_from_the_settings_is_filled_in_before_verl_gets_them(composed, tmp_path):
    config = composed(*PLUG_IN, N, "trainer.default_local_dir=here", "preset=robust")
    assert config.ekipl.run_dir == str(tmp_path / "here" / "ekipl")
    assert config.trainer.v1.sampler.sampler_kwargs.ekipl.run_dir == config.ekipl.run_dir
    assert config.algorithm.adv_estimator == "ekipl"


def test_our_rewards_are_one_more_word(composed):
    assert composed(*PLUG_IN, N).reward.custom_reward_function.path is None
    assert composed(*PLUG_IN, N, "+judge=ekipl").reward.custom_reward_function.path == "pkg://ekipl_reward"


def test_experts_are_asked_for_our_tags_only_where_our_reward_reads_them(composed, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    asked = [*PLUG_IN, "experts=openai", N]
    theirs, ours, own = (
        EkiplSettings.from_config(composed(*asked, *words).ekipl).experts[0].instruction
        for words in ([], ["+judge=ekipl"], ["+ekipl.experts.0.instruction=Briefly."])
    )
    assert theirs is None
    assert "<answer>" in ours
    assert own == "Briefly."


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (PLUG_IN, "actor_rollout_ref.rollout.n=1 is G"),
        ([*PLUG_IN, N, "ekipl.too_long=shorten"], "ekipl.too_long='shorten' is not known"),
        ([*PLUG_IN, N, "trainer.v1.trainer_mode=separate_async"], "is not supported"),
        ([*PLUG_IN, N, "trainer.use_v1=false"], "deprecated trainer"),
        ([*PLUG_IN[:-1], N], "algorithm.adv_estimator=gae computes other advantages"),
        ([*PLUG_IN, N, "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null"], "no expert would be asked"),
        ([*PLUG_IN, N, "actor_rollout_ref.rollout.calculate_log_probs=true"], "no rollout log-probability"),
        ([SEARCH, "+plugin=ekipl", "experts=openai", N], "OPENAI_API_KEY: this environment variable is not set"),
        (["hydra.searchpath=[pkg://recipe.no_such_place]", *PLUG_IN[1:], N], "experts"),
        (["experts=demo", N], "experts"),
        ([*PLUG_IN, N, "--multirun"], "one run at a time"),
    ],
)
def test_what_cannot_work_is_refused(composed, capsys, words, says):
    with pytest.raises(SystemExit) as ended:
        composed(*words)
    assert ended.value.code
    assert says in f"{ended.value.code} {capsys.readouterr().err}"


def test_a_loop_that_was_not_tried_is_said_and_not_refused(composed, capsys):
    composed(*PLUG_IN, N, "actor_rollout_ref.rollout.agent.default_agent_loop=their_loop")
    assert "not tried beside the agent loop 'their_loop'" in capsys.readouterr().err


def test_our_format_reward_beside_tools_is_said(composed, capsys):
    tools = [*PLUG_IN, N, "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent"]
    said = []
    for words in (
        [],
        ["+judge=ekipl"],
        ["+judge=ekipl", "ekipl.reward.format_weight=0"],
        ["+judge=ekipl", "experts=none"],
    ):
        composed(*tools, *words)
        said.append(
            "ekipl.reward.format_weight=1.0 is lost by every answer with a tool call" in capsys.readouterr().err
        )
    assert said == [False, True, False, False]


def test_verls_main_starts_nothing_after_a_refusal(tmp_path):
    run = main_ppo(tmp_path, *PLUG_IN)
    assert run.returncode == 2
    assert "error: actor_rollout_ref.rollout.n=1 is G" in run.stderr
    assert "ray init kwargs" not in run.stdout


def test_a_bug_in_the_plug_in_ends_the_process_and_is_no_warning(monkeypatch, capsys):
    from hydra._internal.callbacks import Callbacks

    from recipe.ekipl import plug_in

    monkeypatch.setattr(plug_in, "prepare", lambda config: 1 / 0)
    callbacks = Callbacks(
        OmegaConf.create({"hydra": {"callbacks": {"ekipl": {"_target_": "recipe.ekipl.plug_in.PlugIn"}}}})
    )
    with pytest.raises(SystemExit):
        callbacks.on_run_start(config=OmegaConf.create(), config_name="x")
    assert "ZeroDivisionError" in capsys.readouterr().err


def commands(page):
    """The commands of a page's bash blocks, as lists of words."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for command in block.replace("\\\n", " ").splitlines():
            if "verl.trainer.main_ppo" in command:
                yield shlex.split(command)


def test_the_pages_second_command_is_its_first_and_five_words_at_most(composed, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456")
    monkeypatch.setenv("GEMINI_API_KEY", "test-0123456")
    before, after = list(commands(ROOT / "docs" / "plug_in.md"))[:2]
    assert after[: len(before)] == before
    assert 0 < len(after) - len(before) <= 5
    composed(*before[3:])
    config = composed(*after[3:])
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class.startswith("ekipl_rollout.")
    assert [expert.name for expert in config.ekipl.experts] == ["gpt-4o", "gemini"]
