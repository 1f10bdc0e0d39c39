"""The Megatron bridge where Megatron is missing or has moved: it says so, with versions."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from recipe.ekipl.megatron import seams


def test_registering_without_megatron_names_what_is_missing_and_how_to_install_it(monkeypatch):
    def version(name):
        if name.startswith("megatron"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.9.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(seams.SeamError) as caught:
        import recipe.ekipl.megatron.register  # noqa: F401
    message = str(caught.value)
    assert "megatron-core and megatron-bridge cannot be found" in message
    assert "megatron-core missing (written for 0.16.1)" in message
    assert "pip install --no-deps megatron-core==0.16.1 megatron-bridge==0.3.1" in message


def test_every_place_that_installs_megatron_takes_what_the_bridge_was_written_for():
    root = Path(__file__).parents[2]
    wanted = {(name, version) for name, version in seams.WRITTEN_FOR.items() if name.startswith("megatron")}
    pins = re.compile(r"^(megatron-\w+)==([\d.]+)", re.MULTILINE)
    assert set(pins.findall((root / "scripts/requirements-megatron.txt").read_text())) == wanted
    assert set(re.findall(r"(megatron-\w+)==([\d.]+)", seams.INSTALL)) == wanted
    extra = (root / "pyproject.toml").read_text().partition("\nmegatron = [")[2].partition("]\n")[0]
    assert set(re.findall(r"(megatron-\w+)==([\d.]+)", extra)) == {
        ("megatron-core", seams.WRITTEN_FOR["megatron-core"])
    }


def test_a_function_that_has_lost_an_argument_is_named():
    def provide(pre_process, vp_stage): ...

    seams.require_parameters(provide, "pre_process", "vp_stage")
    with pytest.raises(seams.SeamError, match=r"provide no longer takes post_process.*transformers 5\.9\.0"):
        seams.require_parameters(provide, "pre_process", "post_process")


def test_other_engines_are_not_judged_by_megatrons_settings():
    from omegaconf import OmegaConf

    from recipe.ekipl.megatron.checks import problems

    assert list(problems(OmegaConf.create({"model_engine": "dp"}))) == []


def test_what_the_config_tells_verl_to_import_is_there():
    import importlib.util

    from omegaconf import OmegaConf

    from recipe.ekipl.compose import CONFIG_DIR
    from recipe.ekipl.megatron import EXTERNAL_LIB

    config = OmegaConf.load(CONFIG_DIR / "ekipl_engine" / "megatron.yaml").actor_rollout_ref
    assert config.model.external_lib == EXTERNAL_LIB
    assert not config.model.use_fused_kernels
    assert config.actor.optim.use_checkpoint_opt_param_scheduler, "or a resumed schedule begins anew"
    assert importlib.util.find_spec(EXTERNAL_LIB) is not None
