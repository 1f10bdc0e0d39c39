"""What is refused before Ray starts, where no installed verl is needed to know it."""

import pytest
from omegaconf import OmegaConf

from recipe.ekipl import checks


def config(strategy="fsdp2", **model):
    return OmegaConf.create({"actor_rollout_ref": {"model": model, "actor": {"strategy": strategy}}})


@pytest.fixture
def gpu_without_flash_attn(monkeypatch):
    monkeypatch.setattr(checks.cpu, "is_selected", lambda: False)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    "model",
    [
        {"use_remove_padding": True, "override_config": {"attn_implementation": "sdpa"}},
        {"use_remove_padding": False},
        {"use_remove_padding": False, "override_config": {"attn_implementation": "flash_attention_2"}},
    ],
)
def test_a_gpu_run_without_flash_attn_is_refused_with_both_ways_out(gpu_without_flash_attn, model):
    (problem,) = checks._kernels(config(**model))
    assert "pip install flash-attn" in problem and "attn_implementation=sdpa" in problem


def test_a_gpu_run_that_does_without_flash_attn_is_not_refused(gpu_without_flash_attn):
    model = {"use_remove_padding": False, "override_config": {"attn_implementation": "sdpa"}}
    assert list(checks._kernels(config(**model))) == []
    assert list(checks._kernels(config(strategy="megatron", use_remove_padding=True))) == []


def test_flash_attn_is_not_asked_for_where_it_is_or_on_a_cpu(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: object())
    monkeypatch.setattr(checks.cpu, "is_selected", lambda: False)
    assert list(checks._kernels(config(use_remove_padding=True))) == []
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    monkeypatch.setattr(checks.cpu, "is_selected", lambda: True)
    assert list(checks._kernels(config(use_remove_padding=True))) == []
