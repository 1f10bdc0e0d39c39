"""Spatial transformation under our own rules: how calls are read, paired and paid."""

import itertools
import random

import pytest

from ekipl_reward import TruthError, check_truth, compute_score
from ekipl_reward.spatial_transformation import CREDITS, best_pairing, credit, parse_calls

TRUTH = "change_position(0, behind)\nchange_shape(1, sphere)"


def accuracy(answer, truth=TRUTH, **options):
    return compute_score("trance", f"<think>a</think><answer>{answer}</answer>", truth, **options)["accuracy"]


@pytest.mark.parametrize(
    ("answer", "partial", "full", "penalty"),
    [
        ("change_position(0, behind) change_shape(1, sphere)", 1.0, 1.0, 1.0),
        ("change_shape(1, sphere)\nchange_position(0, behind)", 1.0, 1.0, 1.0),
        ("change_position(0, behind)", 0.5, 0.5, 0.5),
        ("change_position(0, front) change_shape(1, sphere)", 0.75, 0.5, 0.375),
        ("change_position(1, behind) change_shape(0, sphere)", 0.5, 0.0, -0.25),
        ("change_position(1, behind)", 0.25, 0.0, -0.125),
        ("change_position(2, left)", 0.125, 0.0, -0.25),
        ("change_size(0, behind)", 0.0, 0.0, 0.0),
        ("change_position(0, behind) change_position(0, behind)", 0.5, 0.5, 0.5),
        (f"{TRUTH}\n{TRUTH}", 0.5, 0.5, 0.5),
        ("nothing", 0.0, 0.0, 0.0),
    ],
)
def test_calls_earn_the_documented_credit_in_any_order(answer, partial, full, penalty):
    assert accuracy(answer, spatial="partial") == partial
    assert accuracy(answer, spatial="full") == full
    assert accuracy(answer, spatial="penalty") == penalty


def test_the_best_pairing_is_found_where_a_greedy_one_misses_it():
    truth = "change_position(0, front)\nchange_position(1, left)"
    assert accuracy("change_position(0, left) change_position(0, right)", truth) == 0.5


def test_a_faithful_copy_of_a_truth_with_a_repeated_call_is_right():
    truth = "change_color(0, red)\nchange_color(0, red)"
    assert accuracy(truth, truth) == 1.0
    assert accuracy("change_color(0, red)", truth) == 0.5


@pytest.mark.parametrize(
    "call",
    [
        "change_position(0,behind)",
        "change_position( 0 , behind )",
        "change_position (0, behind)",
        "change_position(0, 'behind')",
        'change_position("0", "behind")',
        "change_position(00, Behind)",
        "x.change_position(0,\nbehind)",
        "1. **change_position(0, behind)**;",
    ],
)
def test_a_call_is_known_however_it_is_spelled(call):
    assert parse_calls(call) == [("change_position", "0", "behind")]


def test_tvrs_hyphens_are_underscores():
    assert accuracy("change_position(0, front-left)", "change_position(0, front_left)") == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "position(0, behind)",
        "my_change_position(0, behind)",
        "change_position(0)",
        "change_position(0, a, b)",
        "fly(0, x)",
    ],
)
def test_what_is_no_call_of_the_five_functions_is_not_seen(text):
    assert parse_calls(text) == []


@pytest.mark.parametrize(
    "truth", ["move it", "", "change_position(0, behind)\nchange_shape(1 sphere)", "fly(0, behind)"]
)
def test_a_truth_that_cannot_be_read_completely_is_refused(truth):
    with pytest.raises(TruthError):
        check_truth("trance", truth)


def best_by_trying_everything(predicted, expected, credits):
    """Largest total over all ways to pair as many calls of one function as there can be."""
    short, long, swapped = (
        (predicted, expected, False) if len(predicted) <= len(expected) else (expected, predicted, True)
    )
    best = (-1, 0.0)
    for chosen in itertools.permutations(range(len(long)), len(short)):
        pairs = [(short[i], long[j]) for i, j in enumerate(chosen) if short[i][0] == long[j][0]]
        total = sum(credit(*(reversed(pair) if swapped else pair), credits) for pair in pairs)
        best = max(best, (len(pairs), total))
    return best[1]


@pytest.mark.parametrize("kind", list(CREDITS))
def test_the_pairing_is_as_good_as_the_best_of_all_pairings(kind):
    rng = random.Random(kind)
    for _ in range(300):
        lists = [
            [
                (rng.choice(("change_color", "change_shape")), rng.choice("012"), rng.choice("abc"))
                for _ in range(rng.randint(1, 5))
            ]
            for _ in range(2)
        ]
        found = sum(credit(*pair, CREDITS[kind]) for pair in best_pairing(*lists))
        assert found == best_by_trying_everything(*lists, CREDITS[kind]), lists
