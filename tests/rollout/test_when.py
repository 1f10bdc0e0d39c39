import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekipl_rollout.answer import POLICY, Candidate, Message, Question
from ekipl_rollout.settings import AskSettings, EkiplSettings, FractionSettings
from ekipl_rollout.when import Row, When, is_unsolved, share


def when(seed=0, **ask):
    return When(EkiplSettings(ask=AskSettings(**ask), seed=seed))


def row(key=0, step=1, data_source="clevr_math"):
    return Row(data_source, step, str(key))


def answers(*accuracies, scores=None):
    scores = scores or [1.0 + accuracy for accuracy in accuracies]
    return [
        Candidate(POLICY, i, score, {"accuracy": accuracy})
        for i, (accuracy, score) in enumerate(zip(accuracies, scores, strict=True))
    ]


def test_always_never_and_unsolved():
    assert when().before(row()) is True
    assert when(when="never").before(row()) is False
    assert when(when="unsolved").before(row()) is None


def test_a_row_is_told_by_its_texts_and_pictures_and_not_by_its_id():
    def of(*parts, id="u"):
        return Row.of(Question(id, (Message("user", parts),), step=3), "clevr_math")

    assert of("How many?", b"png", id="a") == of("How many?", b"png", id="b")
    assert (
        len({of("How many?", b"png").key, of("How many?", b"gif").key, of("How", b"many?png").key, of("x\ud83d").key})
        == 4
    )


@pytest.mark.parametrize(
    ("group", "unsolved"),
    [
        (answers(0, 0, 0), True),
        (answers(0.5, 0.5), True),
        (answers(0, 0, scores=[1.0, 0.0]), True),  # they differ in format only, and all fail
        (answers(0, 1), False),
        (answers(1, 1, 1), False),
        (answers(1, 0.5, scores=[1.5, 1.5]), True),  # no spread, and not all are right
        (answers(1, 1, scores=[2.0, 1.0]), False),
        ([], False),
    ],
)
def test_what_unsolved_means(group, unsolved):
    assert is_unsolved(group) is unsolved


def test_unsolved_reads_verls_name_of_accuracy_too():
    assert is_unsolved([Candidate(POLICY, 0, 1.0, {"acc": 0.0})])
    assert not is_unsolved([Candidate(POLICY, 0, 1.0, {"acc": True})])


def test_a_rule_for_each_task():
    rule = when(when="always", tasks={"geomath": "never", "trance": "unsolved"})
    assert rule.before(row(data_source="clevr_math")) is True
    assert rule.before(row(data_source="geomath")) is False
    assert rule.before(row(data_source="trance")) is None


def test_schedules():
    linear = FractionSettings("linear", 1.0, 0.0, 101)
    assert [share(linear, step) for step in (1, 51, 101, 500)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    cosine = FractionSettings("cosine", 1.0, 0.2, 101)
    assert [share(cosine, step) for step in (1, 26, 51, 101)] == pytest.approx(
        [1.0, 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2, 0.6, 0.2]
    )
    step = FractionSettings("step", 0.8, 0.1, 50)
    assert [share(step, at) for at in (1, 50, 51, 99)] == [0.8, 0.8, 0.1, 0.1]
    assert share(FractionSettings("constant", 0.3), 12345) == 0.3


@given(
    st.sampled_from(["constant", "linear", "cosine", "step"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 1000),
    st.integers(1, 3000),
)
def test_a_share_lies_between_start_and_end(schedule, start, end, steps, step):
    found = share(FractionSettings(schedule, start, end, steps), step)
    assert min(start, end) - 1e-9 <= found <= max(start, end) + 1e-9


def test_the_same_seed_decides_alike_and_another_one_differently():
    rows = [row(i, step) for step in (1, 2) for i in range(200)]
    settings = {"when": "fraction", "fraction": FractionSettings(start=0.5)}
    first, again, other = (
        [rule.before(r) for r in rows] for rule in (when(1, **settings), when(1, **settings), when(2, **settings))
    )
    assert first == again != other
    assert first[:200] != first[200:]  # another step draws anew


@pytest.mark.parametrize("start", [0.0, 0.25, 0.9, 1.0])
def test_the_share_of_rows_that_are_asked_is_the_one_that_was_set(start):
    rule = when(when="fraction", fraction=FractionSettings(start=start))
    asked = sum(rule.before(row(i)) for i in range(4000)) / 4000
    assert asked == pytest.approx(start, abs=0.03)


def test_rows_that_were_asked_at_a_lower_share_are_asked_at_a_higher_one_too():
    few, many = (when(when="fraction", fraction=FractionSettings(start=s)) for s in (0.2, 0.6))
    assert all(many.before(row(i)) for i in range(500) if few.before(row(i)))


def test_the_expected_share_is_what_the_plan_reckons_with():
    rule = when(when="fraction", fraction=FractionSettings("linear", 1.0, 0.0, 11), tasks={"trance": "unsolved"})
    assert rule.expected_share("clevr_math", 6) == pytest.approx(0.5)
    assert rule.expected_share("trance", 6) == 1.0
