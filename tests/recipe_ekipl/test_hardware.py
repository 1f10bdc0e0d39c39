"""What a run needs, against what was counted and published, and what is said when a machine lacks it."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.hardware.machine import Gpu, Machine, read_gpus, visible
from recipe.ekipl.hardware.memory import GIB, forward_backward, kv_bytes, phases
from recipe.ekipl.hardware.model_shape import read_shape, shape_of
from recipe.ekipl.hardware.needs import Wanted, missing

SEVEN = "Qwen/Qwen2-VL-7B-Instruct"
PAPERS = Wanted(8, 1, 80 * GIB)

# python -m recipe.ekipl.tiny.model --out models/tiny-measured
# python -m recipe.ekipl.hardware.measure_memory --model models/tiny-measured --gpus G --tokens T --pictures 0.5
# `peak.total`, torch 2.11.0, transformers 5.9.0. tests/contracts/test_memory.py counts again.
COUNTED = [(1, 512, 25_837_372), (8, 4096, 115_251_616)]

TINY = {
    "model_type": "qwen2_vl",
    "tie_word_embeddings": False,
    "text_config": {
        "vocab_size": 549,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "vision_config": {"depth": 3, "embed_dim": 128, "hidden_size": 128, "mlp_ratio": 2, "patch_size": 14},
}


@pytest.mark.parametrize(("gpus", "tokens", "counted"), COUNTED)
def test_an_update_of_the_tiny_model_needs_what_was_counted(gpus, tokens, counted):
    estimated = sum(forward_backward(read_shape(TINY, "tiny"), tokens, 0.5, gpus).values())
    assert estimated == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize(
    ("model", "tokens", "counted"),
    [  # --shapes-only --gpus 8, without the picture tower
        ("Qwen/Qwen2-VL-2B-Instruct", 4096, 3_481_296_136),
        (SEVEN, 8192, 12_452_349_448),
    ],
)
def test_an_update_of_the_language_models_needs_what_was_counted(model, tokens, counted):
    whole = shape_of(model)
    language = replace(whole, vision=replace(whole.vision, depth=0, width=0))
    assert sum(forward_backward(language, tokens, 0.0, 8).values()) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [  # as the hub counts the published safetensors
        ("Qwen/Qwen2-VL-2B-Instruct", 2_208_985_600),
        (SEVEN, 8_291_375_616),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen/Qwen3-VL-2B-Instruct", 2_127_532_032),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
    ],
)
def test_the_known_models_have_the_published_number_of_parameters(model, parameters):
    assert shape_of(model).parameters == parameters


def test_the_cache_of_32768_tokens_of_the_7b_model_is_the_published_size():
    """1.75 GiB: https://github.com/QwenLM/Qwen3-VL/issues/55"""
    assert 32768 * kv_bytes(shape_of(SEVEN)) / GIB == pytest.approx(1.75, rel=0.15)


def test_the_7b_weights_have_the_size_that_vllm_reports():
    """15 GiB, which vLLM prints as GB: https://github.com/vllm-project/vllm/issues/10357"""
    assert 2 * shape_of(SEVEN).parameters / GIB == pytest.approx(15, rel=0.15)


def test_the_states_of_a_model_of_7_5e9_parameters_on_64_gpus_are_those_of_the_zero_paper():
    """1.9 GB, Figure 1 of https://arxiv.org/abs/1910.02054"""
    shape = shape_of(SEVEN)
    step = phases(_config(), shape, 64, 80 * GIB)[-1].parts
    states = (step["weights"] + step["gradients"] + step["optimizer"]) * 7.5e9 / shape.parameters
    assert states / 1e9 == pytest.approx(1.9, rel=0.15)


def test_a_model_that_is_nowhere_is_an_error_that_names_those_that_are_known():
    with pytest.raises(SettingsError, match="Qwen/Qwen2-VL-7B-Instruct"):
        shape_of("somebody/else")


def test_another_family_is_refused_by_name():
    with pytest.raises(SettingsError, match="model_type=llama"):
        read_shape({"model_type": "llama"}, "config.json")


def _config(**changes):
    fsdp = {"param_offload": False, "optimizer_offload": False}
    actor = {"strategy": "fsdp2", "fsdp_config": fsdp, "use_dynamic_bsz": True, "ppo_max_token_len_per_gpu": 16384}
    rollout = {
        "gpu_memory_utilization": 0.6,
        "free_cache_engine": True,
        "tensor_model_parallel_size": 1,
        "log_prob_use_dynamic_bsz": True,
        "log_prob_max_token_len_per_gpu": 16384,
    }
    config = OmegaConf.create(
        {
            "data": {"max_prompt_length": 4096, "max_response_length": 512},
            "actor_rollout_ref": {"actor": actor, "rollout": rollout},
            "trainer": {"save_freq": 50, "max_actor_ckpt_to_keep": 2},
            "ekipl": {"run_dir": "runs/x"},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    return config


def _machine(number=8, **changes):
    whole = Machine((Gpu("NVIDIA A100-SXM4-80GB", 80 * GIB),) * number, 2000 * GIB, 500 * GIB, 4000 * GIB)
    return replace(whole, **changes)


def _missing(machine, wanted=PAPERS, **changes):
    return missing(_config(**changes), shape_of(SEVEN), wanted, machine)


def test_the_papers_machine_lacks_nothing():
    assert _missing(_machine()) == []


@pytest.mark.parametrize(
    ("machine", "wanted", "says"),
    [
        (_machine(0), Wanted(8, 1, 80 * GIB), "scripts/run_ekipl_tiny.sh"),
        (_machine(4), Wanted(8, 1, 80 * GIB), "NGPUS=4"),
        (_machine(8), Wanted(16, 2, 80 * GIB), "scripts/cluster/ray_node.sh"),
        (_machine(8, cluster_gpus=8), Wanted(16, 2, 80 * GIB), "16 GPUs are asked for and 8 found"),
        (_machine(8, shared_memory=GIB), Wanted(8, 1, 80 * GIB), "--shm-size=64g"),
        (_machine(8, memory=GIB), Wanted(8, 1, 80 * GIB), "of memory free"),
        (_machine(8, disk=GIB), Wanted(8, 1, 80 * GIB), "2 checkpoints need"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(machine, wanted, says):
    (problem,) = _missing(machine, wanted)
    assert says in problem


def test_settings_that_make_it_fit_are_named_and_do():
    small = Wanted(8, 1, 32 * GIB)
    (problem,) = _missing(_machine(), small)
    named = dict(word.split("=") for word in problem.split("Add ")[1].rstrip(".").split())
    offload = "actor_rollout_ref.actor.fsdp_config"
    assert named == {f"{offload}.param_offload": "True", f"{offload}.optimizer_offload": "True"}
    assert _missing(_machine(), small, **dict.fromkeys(named, True)) == []


def test_a_model_that_never_fits_asks_for_more_gpus():
    (problem,) = _missing(_machine(), Wanted(8, 1, 16 * GIB))
    assert "NNODES=2" in problem


def test_a_cluster_with_enough_gpus_needs_none_here():
    assert missing(_config(), shape_of(SEVEN), Wanted(16, 2, 80 * GIB), _machine(0, cluster_gpus=16)) == []


def test_the_gpus_are_read_from_what_nvidia_smi_prints():
    answer = "0, GPU-1a, 81920, 4, NVIDIA A100-SXM4-80GB\n1, GPU-2b, 81559, [N/A], NVIDIA H100, PCIe\nNo devices were found\n"
    assert read_gpus(answer) == [
        Gpu("NVIDIA A100-SXM4-80GB", 81920 * 2**20, 4 * 2**20, 0, "GPU-1a"),
        Gpu("NVIDIA H100, PCIe", 81559 * 2**20, 0, 1, "GPU-2b"),
    ]


@pytest.mark.parametrize(
    ("devices", "seen"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [2, 0]), ("1,7,0", [1]), ("GPU-2b", [1]), ("GPU-", [])],
)
def test_only_those_gpus_count_that_cuda_would_show(devices, seen):
    gpus = [Gpu("A100", 80 * GIB, 0, index, uuid) for index, uuid in enumerate(("GPU-1a", "GPU-2b", "GPU-3c"))]
    assert [gpu.index for gpu in visible(gpus, devices)] == seen


def test_gpus_that_are_hidden_are_said_to_be():
    (problem,) = _missing(_machine(4, hidden_gpus=4))
    assert "4 found (8 GPUs, 4 visible by CUDA_VISIBLE_DEVICES, 80 of 80 GiB free on the fullest; unset it" in problem
    (problem,) = _missing(_machine(4, hidden_gpus=4, cluster_gpus=4))
    assert "CUDA_VISIBLE_DEVICES" not in problem, "the cluster's GPUs are what counts"


def test_a_gpu_that_somebody_holds_is_named():
    free, held = Gpu("A100", 80 * GIB), Gpu("A100", 80 * GIB, 70 * GIB, 3)
    (problem,) = _missing(_machine(gpus=(free,) * 7 + (held,)))
    assert "8 GPUs, 10 of 80 GiB free on the fullest, GPU 3" in problem


def _megatron_config(**changes):
    parallel = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
    away = {"param_offload": False, "optimizer_offload": False}
    limits = {"log_prob_use_dynamic_bsz": True, "log_prob_max_token_len_per_gpu": 16384}
    config = _config(**{"actor_rollout_ref.actor.strategy": "megatron", "actor_rollout_ref.actor.use_kl_loss": True})
    config.actor_rollout_ref.actor.megatron = {**parallel, **away}
    config.actor_rollout_ref.ref = {"megatron": {**away}, **limits}
    for key, value in changes.items():
        OmegaConf.update(config, f"actor_rollout_ref.{key}", value)
    return config


def _megatron(**changes):
    return {phase.name: phase.parts for phase in phases(_megatron_config(**changes), shape_of(SEVEN), 8, 80 * GIB)}


def test_megatrons_phases_come_to_what_a_hand_reckons():
    """Qwen2-VL-7B on 8 GPUs, TP 2, PP 2: a rank has 7615616512 / 4 parameters of text and all 675759104 of the tower, half of the
    optimizer's 12 bytes for each, and 16384 tokens, half of them from 32768 patches."""
    states = {
        "weights": 5_159_326_464,
        "reference": 5_159_326_464,
        "gradients": 10_318_652_928,
        "optimizer": 15_477_979_392,
    }
    half_a_layer = 16384 * (24 * 3584 + 12 * 18944) / 2
    kept = 16384 * (2 * 3584 * 28 + 8 * 3584 + 12 * 128)
    tower = 32768 * (2 * 1280 * 32 + 2 * 1176 + 6 * 1280)
    work = {"pictures": 32768 * 4 * 1176, "other": 3 * GIB}
    assert _megatron() == {
        "rollout": {**states, "vLLM": 0.6 * 80 * GIB, "other": 3 * GIB},
        "log-probabilities": {**states, **work, "activations": (half_a_layer + 16384 * 152064 * 12) / 2},
        "update": {**states, **work, "activations": (kept + 16384 * 152064 * 8) / 2 + tower},
    }


def test_megatron_has_no_reference_without_a_kl_loss_and_keeps_it_on_the_gpu_unless_it_is_offloaded():
    assert not any(parts["reference"] for parts in _megatron(**{"actor.use_kl_loss": False}).values())
    offloaded = _megatron(**{"ref.megatron.param_offload": True})
    assert (offloaded["rollout"]["reference"], offloaded["update"]["reference"]) == (0, 0)


def test_of_offloaded_policy_and_reference_megatron_has_one_there_at_a_time_and_the_larger_pass_counts():
    away = {"ref.megatron.param_offload": True, "actor.megatron.param_offload": True}
    policys = _megatron(**away)["log-probabilities"]  # with its entropy
    assert (policys["weights"], policys["reference"], policys["gradients"]) == (5_159_326_464, 0, 0)
    references = _megatron(**away, **{"ref.log_prob_max_token_len_per_gpu": 32768})["log-probabilities"]
    assert (references["weights"], references["reference"]) == (0, 5_159_326_464)
    assert references["pictures"] == 2 * policys["pictures"]


def test_settings_that_make_a_megatron_run_fit_are_named_and_do():
    small = Wanted(8, 1, 56 * GIB)
    (problem,) = missing(_megatron_config(), shape_of(SEVEN), small, _machine())
    named = dict(word.split("=") for word in problem.split("Add ")[1].rstrip(".").split())
    offload = "actor_rollout_ref.actor.megatron"
    assert named == {f"{offload}.param_offload": "True", f"{offload}.optimizer_offload": "True"}
    changes = {key.removeprefix("actor_rollout_ref."): True for key in named}
    assert missing(_megatron_config(**changes), shape_of(SEVEN), small, _machine()) == []
