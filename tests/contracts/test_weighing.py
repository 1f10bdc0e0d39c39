"""The fields that are written between verl's advantages and its update."""

import math
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.workers.config import ActorConfig

from ekipl_rollout.answer import POLICY
from ekipl_rollout.on_verl import weighing
from ekipl_rollout.on_verl.weighing import Rows, compute_fields, learned, luffy_weights
from ekipl_rollout.settings import EkiplSettings
from ekipl_rollout.weigh.modes import luffy_factor

pytestmark = pytest.mark.contract

EXPERT = {"name": "gpt", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "logprobs": True}


def settings(**block):
    return EkiplSettings.from_config({"experts": [EXPERT], **block})


def rows():
    """A padding row between a right expert's, a policy's, and a wrong expert's whose advantage is to be zero."""
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]).float()
    log_probs = torch.tensor([[-1.0, -2.0, 9.0], [0.0, 0.0, 0.0], [-0.5, -0.5, -0.5], [-3.0, 9.0, 9.0]])
    per_row = torch.tensor([1.5, 0.0, -0.5, -2.0]).unsqueeze(-1)
    return Rows(
        session=["2", None, "0", "3"],
        uid=["u", "pad1", "u", "u"],
        mask=mask,
        advantages=per_row * mask,
        returns=per_row * mask,
        old_log_probs=log_probs,
        entropy=torch.full((4, 3), math.log(2)),
    )


GROUPS = {
    "u": {
        "zeroed": [3],
        "shares": {POLICY: 0.5, "gpt": 0.5},
        "rows": {
            "0": {"source": POLICY, "right": True},
            "2": {"source": "gpt", "right": True, "log_own": -2.0},
            "3": {"source": "gpt", "right": False, "log_own": -3.0},
        },
    }
}


def fields(step=1, **block):
    return compute_fields(rows(), GROUPS, settings(**block), step)


def test_the_defaults_write_nothing_but_advantages():
    found, _ = fields()
    assert set(found) == {"advantages", "returns"}
    assert torch.equal(found["advantages"][0], torch.tensor([1.5, 1.5, 0.0]))
    assert not found["advantages"][3].any() and not found["returns"][3].any()


def test_a_weight_is_the_same_for_every_token_of_its_row_and_padding_is_masked():
    found, metrics = fields(weights={"mode": "per_source"})
    weights = found["rollout_is_weights"]
    assert weights.dtype == torch.float32 and not weights.requires_grad
    assert torch.allclose(weights[0], torch.tensor([math.exp(-1.0)] * 2 + [0.0]))
    assert torch.equal(weights[2], torch.ones(3))
    assert weights[3, 0] == 1.0
    assert not weights[1].any()
    assert metrics["ekipl/weights/expert1/log_p05"] == pytest.approx(-0.95)


def test_masked_tokens_are_no_part_of_a_sequence():
    """The 9.0 behind the masks above would make every weight enormous."""
    assert fields(weights={"mode": "per_source"})[0]["rollout_is_weights"].max() <= 1.0


def test_luffy_shapes_expert_tokens_one_by_one_and_leaves_the_policys():
    weights = fields(weights={"mode": "luffy"})[0]["rollout_is_weights"]
    assert weights[0].tolist() == pytest.approx(
        [luffy_factor(math.exp(-1.0), 0.1), luffy_factor(math.exp(-2.0), 0.1), 0.0]
    )
    assert weights[2].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("advantage", [1.5, -1.5])
def test_luffys_shaping_is_the_same_gradient_for_answers_that_are_to_become_less_likely(advantage):
    """verl's loss with these weights beside -A p / (p + gamma) itself. The trick of setting old_log_probs to 0 has no
    gradient for A < 0: the minimum takes the clipped branch."""
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    table, facts = rows(), [GROUPS["u"]["rows"].get(session) for session in rows().session]
    weights = luffy_weights(table, facts, settings().weights)[:1]
    log_p = table.old_log_probs[:1].clone().requires_grad_()
    actor = ActorConfig(strategy="fsdp2", rollout_n=1, ppo_mini_batch_size=1, use_dynamic_bsz=True)
    loss, _ = compute_policy_loss_vanilla(
        old_log_prob=log_p.detach(),
        log_prob=log_p,
        advantages=torch.full((1, 3), advantage),
        response_mask=table.mask[:1],
        config=actor,
        rollout_is_weights=weights,
    )
    plain = table.old_log_probs[:1].clone().requires_grad_()
    p = plain.exp()
    (-(advantage * p / (p + 0.1) * table.mask[:1]).sum() / 2).backward()
    loss.backward()
    assert torch.allclose(log_p.grad, plain.grad, atol=1e-6)
    assert (log_p.grad[0, :2].abs() > 0.01).all()


@pytest.mark.parametrize(("focus", "factor"), [("none", 1.0), ("srft", 0.25)])
def test_imitation_is_of_right_expert_rows_only_and_follows_its_schedule(focus, factor):
    learn = {"sft": {"schedule": "linear", "start": 0.5, "end": 0.0, "steps": 11}, "sft_focus": focus}
    for step, weight in ((1, 0.5), (6, 0.25), (11, 0.0)):
        sft = fields(step, learn=learn)[0]["ekipl_sft"]
        assert sft[0].tolist() == pytest.approx([weight * factor] * 2 + [0.0])
        assert not sft[1:].any()


def test_chord_looks_at_tokens_that_are_neither_known_nor_foreign():
    sft = fields(learn={"sft": {"start": 1.0}, "sft_focus": "chord"})[0]["ekipl_sft"]
    p = [math.exp(-1.0), math.exp(-2.0)]
    assert sft[0, :2].tolist() == pytest.approx([x * (1 - x) for x in p])


def test_the_control_imitates_with_the_same_weight_everywhere():
    found, _ = fields(advantage={"control": "imitate"})
    assert found["advantages"].sum(-1).tolist() == [2.0, 0.0, 3.0, 0.0]
    assert torch.equal(found["advantages"], found["returns"])


def test_advantages_are_told_by_source():
    _, metrics = fields()
    assert metrics["ekipl/expert1/advantage"] == pytest.approx(0.75)
    assert metrics["ekipl/expert1/advantage_positive"] == 0.5
    assert metrics["ekipl/policy/advantage"] == pytest.approx(-0.5)


def test_what_each_row_was_trained_with_is_told_without_padding():
    found = {session: (advantage, weight) for _, session, advantage, weight in learned(rows(), fields()[0])}
    assert found == {"2": (1.5, 1.0), "0": (-0.5, 1.0), "3": (0.0, 1.0)}
    weighted = {session: weight for _, session, _, weight in learned(rows(), fields(weights={"mode": "per_source"})[0])}
    assert weighted["2"] == pytest.approx(math.exp(-1.0))


class Queue:
    """TransferQueue in memory: ragged fields by name."""

    def __init__(self, **fields):
        self.fields = {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in fields.items()}
        self.written = {}

    def kv_batch_get(self, keys, partition_id, select_fields):
        found = {name: self.fields[name] for name in select_fields if name in self.fields}
        return TensorDict(found, batch_size=len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        self.written.update(fields.items())
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[{}] * len(keys), fields=list(fields.keys()))


def test_fields_travel_ragged_and_verls_meta_comes_back(monkeypatch):
    lengths = [2, 1, 3, 1]
    table, masks = rows(), [torch.ones(2), torch.zeros(1), torch.ones(3), torch.ones(1)]

    def ragged(values):
        return [row[:length] for row, length in zip(values, lengths, strict=True)]

    queue = Queue(
        response_mask=masks,
        advantages=ragged(table.advantages),
        returns=ragged(table.returns),
        old_log_probs=ragged(table.old_log_probs),
    )
    monkeypatch.setattr(weighing, "tq", queue)
    keys = ["u_2_0", "pad1_0_0", "u_0_0", "u_3_0"]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{}, {"is_padding": True}, {}, {}])
    meta, teaches, metrics = weighing.finish_batch(batch, GROUPS, settings(weights={"mode": "per_source"}), step=1)
    assert set(meta.fields) == {"advantages", "returns", "rollout_is_weights"}
    for field in queue.written.values():
        assert field.offsets().diff().tolist() == lengths
    expected, _ = fields(weights={"mode": "per_source"})
    for row, weights in zip(
        queue.written["rollout_is_weights"].unbind(), ragged(expected["rollout_is_weights"]), strict=True
    ):
        assert torch.equal(row, weights)
    assert not queue.written["advantages"].unbind()[3].any()
    assert teaches == [True, False, True, False]
    assert metrics["ekipl/weights/ess_mean"] > 1


def test_a_row_with_an_sft_term_alone_teaches():
    nothing, something = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    assert weighing.teaching({"advantages": nothing}) == [False, False]
    assert weighing.teaching({"advantages": nothing, "ekipl_sft": something}) == [False, True]
    assert weighing.teaching({"advantages": -something, "ekipl_sft": nothing}) == [False, True]


def test_rows_of_groups_whose_workers_failed_are_learned_from_in_no_way():
    loss = {"kl_on_experts": False, "sft": {"start": 1.0}}
    keys = ["u_2_0", "pad1_0_0", "u_0_0", "u_3_0"]
    failed = replace(rows(), session=[weighing._identity(key, {}, {})[1] for key in keys])
    found, metrics = compute_fields(failed, {}, settings(weights={"mode": "snis"}, learn=loss), step=1)
    assert set(found) == {"advantages", "returns", "ekipl_expert", "ekipl_sft"}
    assert not any(field.any() for field in found.values())
    assert metrics["ekipl/sft/rows"] == 0.0
