"""The GPU checks themselves, small and on this machine: `python -m recipe.ekipl.gpu` runs and its bounds hold."""

import json
import os
import subprocess
import sys

import pytest

from recipe.ekipl import cpu

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        "not __import__('recipe.ekipl.cpu', fromlist=['x']).wanted()", reason="run it on the GPU itself"
    ),
]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recipe.ekipl.gpu", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_verl_takes_the_plain_step_and_its_cost_is_measured_beside_it():
    done = run("--size", "tiny", "--device", "cpu", "--repeats", "1", "--checks", "attention", "engine", "update")
    assert done.returncode == 0, done.stderr[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["failed"] == 0
    bounded = [finding for finding in last["findings"] if finding["bound"] is not None]
    assert {finding["check"] for finding in bounded} == {"attention", "engine"} and len(bounded) >= 18
    steps = [f for f in bounded if f["what"].startswith("|step")]
    assert steps and all(0 < f["value"] < 1e-3 for f in steps)  # on a CPU in float32 it is 2e-5
    assert {(c["side"], c["what"], c["checkpointing"]) for c in last["costs"]} == {
        (side, *what)
        for side in ("plain", "verl")
        for what in (("update", False), ("update", True), ("log_probs", False))
    }
    assert all(cost["median_s"] > 0 and cost["peak_gib"] > 0 for cost in last["costs"])


def test_a_cuda_check_without_a_gpu_says_what_to_do():
    done = run("--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "--size tiny --device cpu" in done.stderr


@pytest.mark.parametrize("on_a_gpu", [False, True])
def test_the_loss_that_a_run_composes_is_the_one_that_the_plain_side_states(monkeypatch, on_a_gpu):
    from recipe.ekipl.gpu import on_verl
    from recipe.ekipl.gpu.sizes import SIZES

    monkeypatch.setattr(cpu, "wanted", lambda: not on_a_gpu)
    composed = on_verl.actor_config("/nowhere", SIZES["2b"], "bf16", "flash_attention_2", 1e-6)
    assert on_verl.differences(composed.actor) == []
    assert composed.model.use_remove_padding and (composed.model.get("external_lib") is None) == on_a_gpu
    composed.actor.kl_loss_coef = 0.5
    assert on_verl.differences(composed.actor) == ["kl_loss_coef=0.5, plain has 0.005"]
