"""model_engine=megatron: the shipped config composes, becomes verl's dataclasses, and wrong settings are refused."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.checks import check
from recipe.ekipl.megatron import EXTERNAL_LIB

pytestmark = pytest.mark.contract

MEGATRON = ("model_engine=megatron", "experts=demo")
QWEN2_VL_2B = {"num_attention_heads": 12, "num_key_value_heads": 2, "num_hidden_layers": 28, "vocab_size": 151936}


@pytest.fixture
def qwen2_vl(composed, tmp_path):
    """composed, with the sizes of Qwen2-VL-2B (Qwen/Qwen2-VL-2B-Instruct, config.json)."""

    def make(*overrides, **changes):
        config = composed("ekipl_trainer", *MEGATRON, "trainer.n_gpus_per_node=8", *overrides)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", **QWEN2_VL_2B, **changes}))
        return config

    return make


def test_one_override_chooses_the_megatron_engine_with_our_bridge(qwen2_vl):
    config = qwen2_vl()
    check(config)
    assert config.actor_rollout_ref.model.external_lib == EXTERNAL_LIB
    assert config.actor_rollout_ref.actor.strategy == config.actor_rollout_ref.ref.strategy == "megatron"


def test_verl_takes_every_setting_of_it(qwen2_vl):
    from verl.utils.config import omega_conf_to_dataclass

    config = qwen2_vl("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1").actor_rollout_ref
    actor = omega_conf_to_dataclass(config.actor)
    assert actor.optim.lr_decay_style == "cosine"
    assert actor.use_kl_loss and math.isclose(actor.optim.lr, 5e-7)
    assert omega_conf_to_dataclass(config.ref.megatron).forward_only


def test_the_reference_is_laid_out_like_the_actor(qwen2_vl):
    at = "actor_rollout_ref.actor.megatron"
    config = qwen2_vl(f"{at}.tensor_model_parallel_size=2", f"{at}.pipeline_model_parallel_size=2")
    check(config)
    reference = config.actor_rollout_ref.ref.megatron
    assert (reference.tensor_model_parallel_size, reference.pipeline_model_parallel_size) == (2, 2)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("actor_rollout_ref.model.external_lib=null", f"Set {EXTERNAL_LIB}"),
        ("actor_rollout_ref.model.use_fused_kernels=True", "for a text model"),
        ("actor_rollout_ref.actor.megatron.vanilla_mbridge=True", "Set use_mbridge=True vanilla_mbridge=False"),
        ("actor_rollout_ref.actor.megatron.context_parallel_size=2", "use tensor parallelism"),
        ("actor_rollout_ref.actor.megatron.use_distributed_optimizer=False", "fails in verl 0.9.1"),
        (
            "+actor_rollout_ref.actor.megatron.override_transformer_config.apply_rope_fusion=True",
            "wrong M-RoPE positions",
        ),
        ("actor_rollout_ref.actor.freeze_vision_tower=True", "no effect"),
        ("actor_rollout_ref.actor.megatron.use_dist_checkpointing=True", "add hf_model to"),
        ("actor_rollout_ref.actor.megatron.tensor_model_parallel_size=4", "num_key_value_heads=2"),
        ("actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=8", "num_hidden_layers=28"),
        ("actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=3", "must divide the 8 GPUs"),
    ],
)
def test_what_cannot_work_on_megatron_is_refused_before_anything_starts(qwen2_vl, override, says):
    with pytest.raises(SettingsError) as caught:
        check(qwen2_vl(override))
    assert says in str(caught.value)


def test_shards_are_saved_where_a_hugging_face_model_is_saved_beside_them(qwen2_vl):
    saved = "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]"
    check(qwen2_vl("actor_rollout_ref.actor.megatron.use_dist_checkpointing=True", saved))


def test_verls_merger_still_builds_no_model_with_a_vision_tower():
    """Why Megatron shards alone are refused. Read as text: the file cannot be imported without Megatron."""
    (verl,) = importlib.util.find_spec("verl").submodule_search_locations
    table = (
        Path(verl, "models/mcore/registry.py").read_text().partition("MODEL_INITIALIZER_REGISTRY")[2].partition("}")[0]
    )
    assert "SupportedModel.QWEN2:" in table
    assert "VL" not in table
