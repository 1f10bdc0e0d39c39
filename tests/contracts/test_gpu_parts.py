"""The rows, the FLOPs and the loss of the GPU checks. No verl; a GPU is not needed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLForConditionalGeneration

from ekipl_rollout.answer import POLICY
from recipe.ekipl.gpu.findings import Finding
from recipe.ekipl.gpu.flops import count
from recipe.ekipl.gpu.plain import CLIP, DUAL_CLIP, KL, forward, token_loss
from recipe.ekipl.gpu.rows import draw, mrope_positions
from recipe.ekipl.gpu.sizes import SIZES, config_of, write_trainable
from recipe.ekipl.gpu.update import Cost, ratios

pytestmark = pytest.mark.contract
TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = config_of(TINY)
    config._attn_implementation = "eager"
    return Qwen2VLForConditionalGeneration(config).eval()


def test_a_group_holds_answers_of_several_sources_and_both_kinds_of_advantage():
    rows = draw(TINY, seed=0)
    assert len(rows) == TINY.groups * TINY.kept
    assert {row.source for row in rows} > {POLICY}
    assert any(row.advantage["selected"] != row.advantage["all"] for row in rows)
    first = rows[: TINY.kept]
    assert sum(row.advantage["selected"] for row in first) == pytest.approx(0, abs=1e-4)
    assert all(torch.equal(row.prompt, first[0].prompt) for row in first)


def test_the_same_seed_draws_the_same_rows_in_every_process():
    ours, theirs, others = draw(TINY, 3), draw(TINY, 3), draw(TINY, 4)
    assert all(torch.equal(a.response, b.response) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0].pixels, others[0].pixels)


def test_positions_are_those_that_transformers_computes(model):
    row = draw(TINY, seed=1)[0]
    ids = torch.cat([row.prompt, row.response])[None]
    kinds = (ids == model.config.image_token_id).int()
    theirs, _ = model.model.get_rope_index(ids, kinds, row.grid)
    assert torch.equal(row.positions[1:], theirs[:, 0])
    assert row.positions[0].tolist() == list(range(row.length))


def test_text_goes_on_after_the_longer_side_of_the_picture():
    positions = mrope_positions((1, 4, 6), before=2, length=10)
    assert positions[3].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]
    assert positions[2].tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]


def test_flops_are_what_torch_counts_but_for_the_half_that_looks_ahead(model):
    rows = draw(TINY, seed=0)[:1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(model, rows)
    ours = count(model.config, [rows[0].length], [int(rows[0].grid.prod())])
    # torch multiplies whole L x L squares, and turns positions into angles by a product
    assert counter.get_total_flops() == pytest.approx(ours.forward + ours.text_attention, rel=2e-3)
    assert ours.update == 3 * ours.forward


def test_flops_of_the_2b_shape_are_two_for_each_weight_that_multiplies():
    config = config_of(SIZES["2b"])
    per_token = count(config, [1], []).text
    assert per_token == pytest.approx(2 * 1.54e9, rel=0.01)  # its language model has 1.54 B weights, tied


def loss_of(log_prob: float, old: float, ref: float, advantage: float) -> float:
    return float(token_loss(*(torch.tensor(x) for x in (log_prob, old, ref, advantage))))


def test_the_loss_of_an_unchanged_policy_is_minus_its_advantage():
    assert loss_of(-1.0, -1.0, -1.0, 0.7) == pytest.approx(-0.7)


def test_a_good_answer_pays_no_more_beyond_the_clip_and_a_bad_one_costs_no_more_beyond_the_second():
    assert loss_of(0.0, -1.0, 0.0, 1.0) == pytest.approx(-(1 + CLIP))
    assert loss_of(0.0, -3.0, 0.0, -1.0) == pytest.approx(DUAL_CLIP)


def test_the_kl_term_is_k3():
    assert loss_of(-1.0, -1.0, -1.5, 0.0) == pytest.approx(KL * (torch.tensor(-0.5).exp().item() + 0.5 - 1), rel=1e-4)


def test_a_model_for_a_training_run_knows_exactly_the_tokens_of_its_tokenizer(tmp_path):
    from transformers import AutoConfig, AutoProcessor

    write_trainable(TINY, tmp_path, seed=0, device="cpu")
    config, processor = AutoConfig.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert config.text_config.vocab_size == len(processor.tokenizer)
    assert config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert config.text_config.eos_token_id == processor.tokenizer.eos_token_id


def test_not_a_number_never_passes():
    assert not Finding("engine", "loss", float("nan"), 1.0).passed
    assert Finding("engine", "loss", 1.0, 1.0).passed
    assert Finding("engine", "loss", float("nan"), None).passed


def test_the_overhead_is_verls_median_over_plains():
    def cost(side: str, on: bool, seconds: list[float]) -> Cost:
        return Cost(side, "update", on, seconds, 1.0, 1.0, None)

    costs = [cost(side, on, seconds) for on in (False, True) for side, seconds in (("plain", [2, 9, 1]), ("verl", [3]))]
    assert ratios(costs) == {"update": 1.5, "update, checkpointing on": 1.5}
