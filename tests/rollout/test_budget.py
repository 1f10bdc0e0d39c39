"""Money: what is out counts until it is settled, and no order of events exceeds a limit."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_rollout.bounds.budget import Budget, nano


def test_nano_dollars_are_exact_and_never_less_than_was_meant():
    assert nano(0.1) == 100_000_000
    assert nano(0.15e-6) == 150
    assert nano(1.5e-10) == 1
    assert sum(nano(0.1) for _ in range(10)) == nano(1.0)


def test_what_is_out_counts_until_it_is_settled():
    budget = Budget(run=100)
    assert budget.ask("gpt", None, 60) == "fits"
    budget.reserve(1, "gpt", None, 60)
    assert budget.ask("gpt", None, 60) == "wait"
    assert budget.ask("gpt", None, 101) == "never"
    budget.settle(1, 10)
    assert budget.ask("gpt", None, 90) == "fits"
    assert (budget.spent(), budget.reserved(), budget.left()) == (10, 0, 90)


def test_an_unknown_end_costs_the_whole_reservation_and_a_second_settling_nothing():
    budget = Budget(run=100)
    budget.reserve(1, "gpt", 3, 60)
    assert budget.settle(1, None).nano == 60
    assert budget.settle(1, 0) is None
    assert budget.spent(step=3) == 60


def test_each_of_the_three_limits_holds():
    budget = Budget(run=100, step=50, experts={"gpt": 30})
    assert budget.ask("gpt", 1, 31) == "never"
    assert budget.ask("gemini", 1, 51) == "never"
    assert budget.ask("gemini", None, 51) == "fits"
    budget.charge("gemini", 1, 50)
    assert budget.ask("gemini", 1, 1) == "never"
    assert budget.ask("gemini", 2, 50) == "fits"
    assert budget.left("gpt") == 30
    assert budget.left("gemini") is None


moves = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("ab"), st.sampled_from([None, 1, 2]), st.integers(0, 40)),
        st.tuples(st.just("settle"), st.integers(0, 20), st.floats(0, 1)),
        st.tuples(st.just("lost"), st.integers(0, 20)),
        st.tuples(st.just("crash")),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_no_order_of_asking_settling_losing_and_crashing_exceeds_a_limit(moves):
    limits = {"run": 100, "step": 60, "a": 50}
    true = []  # (expert, step, cost) of everything that a provider has billed
    gone = []  # what the ledger holds: (expert, step, nano)
    out = {}
    budget = Budget(limits["run"], limits["step"], {"a": limits["a"], "b": None})
    for number, move in enumerate(moves):
        if move[0] == "ask":
            _, expert, step, amount = move
            if budget.ask(expert, step, amount) == "fits":
                budget.reserve(number, expert, step, amount)
                out[number] = (expert, step, amount)
        elif move[0] == "crash":  # everything that was out may have been billed in full
            true += out.values()
            gone += out.values()
            out = {}
            budget = Budget(limits["run"], limits["step"], {"a": limits["a"], "b": None})
            for expert, step, amount in gone:
                budget.charge(expert, step, amount)
        elif out:
            request = list(out)[move[1] % len(out)]
            expert, step, amount = out.pop(request)
            cost = int(amount * move[2]) if move[0] == "settle" else amount
            budget.settle(request, cost if move[0] == "settle" else None)
            true.append((expert, step, cost))
            gone.append((expert, step, cost))
        worst = true + list(out.values())
        assert sum(cost for _, _, cost in worst) <= limits["run"]
        assert sum(cost for expert, _, cost in worst if expert == "a") <= limits["a"]
        for which in (1, 2):
            assert sum(cost for _, step, cost in worst if step == which) <= limits["step"]
        assert budget.spent() + budget.reserved() == sum(cost for _, _, cost in worst)
