"""What a run says it is going to do, by every shipped config: requests, dollars, the budget."""

import pytest
from omegaconf import open_dict

from recipe.ekipl.checks import check
from recipe.ekipl.plan import make_plan, render

pytestmark = pytest.mark.contract


def planned(composed, *overrides):
    config = composed(
        "ekipl_trainer", "experts=paper", "trainer.total_training_steps=101", "trainer.total_epochs=34", *overrides
    )
    settings = check(config)
    plan = make_plan(config, settings)
    return plan, render(plan, settings)


def test_the_plan_says_what_a_rule_saves(composed):
    always, text = planned(composed)
    assert (always.asked_share, always.requests) == (1.0, 101 * 4 * 2)
    assert "less than always" not in text
    half, text = planned(
        composed, "ekipl.ask.when=fraction", "ekipl.ask.fraction={schedule: linear, start: 1.0, end: 0.0, steps: 101}"
    )
    assert (half.asked_share, half.requests) == (0.5, always.requests // 2)
    assert half.dollars == pytest.approx(always.dollars / 2, abs=0.01)
    assert "50% of the rows, 404 requests" in text
    assert f"${always.dollars - half.dollars:.2f} less than always" in text
    unsolved, text = planned(composed, "ekipl.ask.when=unsolved")
    assert unsolved.requests == always.requests
    assert "at most 100% of the rows, at most 808 requests" in text
    none, text = planned(composed, "+ekipl.ask.tasks={clevr_math: never}")
    assert (none.requests, none.dollars) == (0, 0.0)


def test_the_plan_counts_pictures_at_the_most_that_the_model_bills(composed):
    config = composed(
        "ekipl_trainer", "experts=openai", "trainer.total_training_steps=1000", "trainer.total_epochs=334"
    )
    settings = check(config)
    plan = make_plan(config, settings)
    assert "assumed: 400 tokens of text a question, 1 picture of as many tokens" in render(plan, settings)
    assert "(gpt-4o 1445)" in render(plan, settings)
    a_row = (400 + 1445) * 2.5 + 8 * 512 * 10.0  # text and one picture in, eight answers out; dollars a million tokens
    assert plan.dollars == pytest.approx(1000 * 4 * a_row / 1e6, abs=0.01)


def test_only_the_rows_that_verl_takes_are_planned_with(composed):
    whole, _ = planned(composed)
    part, _ = planned(composed, "data.train_max_samples=8", "data.val_max_samples=1", "trainer.total_epochs=51")
    assert (part.train_rows, part.validation_rows, part.validation_by_source) == (8, 1, {})
    assert whole.train_rows > 8 and sum(whole.validation_by_source.values()) == whole.validation_rows > 1


def test_a_replay_is_planned_without_requests_and_money(composed, tmp_path):
    config = composed("ekipl_trainer", "experts=paper", "ekipl.record.mode=replay")
    settings = check(config)
    plan = make_plan(config, settings)
    assert (plan.requests, plan.dollars, plan.num_experts) == (0, 0.0, 2)
    assert "nobody: answers come from the record" in render(plan, settings)


def test_the_plan_reckons_with_an_experts_own_n(composed):
    config = composed("ekipl_trainer", "experts=paper")
    with open_dict(config):
        config.ekipl.experts[0].num_answers = 2
    settings = check(config)
    plan = make_plan(config, settings)
    text = render(plan, settings)
    assert plan.candidates_per_row == 18
    assert "8 + 2 + 8 answers = 18 candidates" in text


def test_the_plan_says_what_the_budget_is_and_what_is_gone_of_it(composed, tmp_path):
    from ekipl_rollout.bounds.ledger import Ledger, Settle

    assert "no limit" in planned(composed)[1]
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.write([Settle(1, "gpt-4o", 1, 1_250_000_000)])
    ledger.close()
    text = planned(composed, "ekipl.bounds.max_dollars=5")[1]
    assert "$5.00, $1.25 of it spent by earlier attempts; the run goes on with the policy alone when it is gone" in text
    assert "when it is gone" not in planned(composed, "ekipl.bounds.max_dollars=5000")[1]
