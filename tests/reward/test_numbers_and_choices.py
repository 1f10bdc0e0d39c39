"""Visual counting and structure perception under our own rules."""

import pytest

from ekipl_reward import TruthError, check_truth, compute_score
from ekipl_reward.numbers import parse_number
from ekipl_reward.structure_perception import tolerance


def judged(source, answer, truth, **options):
    result = compute_score(source, f"<think>a</think><answer>{answer}</answer>", truth, **options)
    return result["accuracy"], result["reason"]


@pytest.mark.parametrize(
    "answer", ["3", "3.0", " 3 ", "+3", "3.", "03", "$3$", "6/2", "**3**", "\\boxed{3}", "`3`", "3e0"]
)
def test_a_count_is_compared_as_a_number(answer):
    assert judged("clevr_math", answer, "3") == (1.0, "")


@pytest.mark.parametrize(
    "answer",
    ["three", "3 objects", "3 or 4", "nan", "inf", "3e999999999", "３", "1_0", "", "3/0", "−", "3,0", "9" * 100],
)
def test_what_is_no_number_is_a_wrong_count(answer):
    assert judged("clevr_math", answer, "3") == (0.0, "not_a_number")


def test_thousands_and_the_typographic_minus_are_read():
    assert judged("clevr_math", "1,200", "1200")[0] == 1.0
    assert judged("clevr_math", "\u22123", "-3")[0] == 1.0
    assert parse_number("1,20") is None


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [("100", 1.0), ("104", 1.0), ("105", 1.0), ("110", 0.75), ("112.5", 0.5), ("115", 0.25), ("120", 0.0), ("80", 0.0)],
)
def test_a_measured_number_earns_the_cosine_tolerance(answer, accuracy):
    assert judged("geomath", answer, "100")[0] == pytest.approx(accuracy)
    assert judged("geomath", answer, "100", structure="exact")[0] == float(answer == "100")


def test_the_tolerance_is_symmetric_and_falls():
    errors = [i / 1000 for i in range(400)]
    values = [tolerance(100 * (1 + error), 100.0) for error in errors]
    assert values == [pytest.approx(tolerance(100 * (1 - error), 100.0)) for error in errors]
    assert values == sorted(values, reverse=True)


def test_truth_zero_asks_for_zero():
    assert judged("geomath", "0", "0") == (1.0, "")
    assert judged("geomath", "0.0001", "0") == (0.0, "beyond_tolerance")


@pytest.mark.parametrize(
    "answer", ["45°", "45 degrees", "$45^\\circ$", "45 cm", "45cm^2", "x = 45", "**45**", "45 units", "$x=45$"]
)
def test_a_unit_behind_and_a_name_before_a_number_do_not_matter(answer):
    assert judged("geomath", answer, "45", structure="exact") == (1.0, "")


def test_a_percentage_is_the_number_or_its_hundredth():
    assert judged("geomath", "75%", "75", structure="exact")[0] == 1.0
    assert judged("geomath", "75%", "0.75", structure="exact")[0] == 1.0


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B.", "Option B", "**B**", "\\text{B}", "The answer is (B).", "B) 45 cm"]
)
def test_a_choice_is_known_by_its_letter(answer):
    assert judged("geometry3k", answer, "B") == (1.0, "")
    assert judged("geometry3k", answer, "C") == (0.0, "another_choice")


@pytest.mark.parametrize("answer", ["A or B", "AB", "not B", "B, C", "A. or B.", "B) or C)", "45", "β", "", "a bee"])
def test_anything_but_one_letter_is_no_choice(answer):
    assert judged("geometry3k", answer, "B") == (0.0, "not_a_choice")


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("5\\sqrt2", "5\\sqrt{2}"),
        ("5√2", "$5\\sqrt{2}$"),
        ("12π", "12\\pi"),
        ("\\sqrt{2}/2", "\\frac{1}{\\sqrt{2}}"),
        ("y + x", "x+y"),
        ("2:3", "2/3"),
    ],
)
def test_expressions_are_equal_as_mathematics(answer, truth):
    assert judged("geometry3k", answer, truth, structure="exact") == (1.0, "")


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("5", "5\\sqrt{2}"),
        ("12", "12π"),
        ("2 or 3", "3"),
        ("2, 3", "3"),
        ("50 = 45", "45"),
        ("45 \\approx 60", "45"),
        ("45 \\text{ or 60}", "45"),
        ("x > 45", "45"),
    ],
)
def test_half_an_expression_or_two_answers_are_wrong_where_math_verify_alone_takes_them(answer, truth):
    assert judged("geometry3k", answer, truth)[0] == 0.0


def test_an_expression_with_a_value_earns_the_tolerance_too():
    assert judged("geometry3k", "7.07", "5\\sqrt{2}") == (1.0, "")
    assert judged("geometry3k", "7.07", "5\\sqrt{2}", structure="exact") == (0.0, "another_expression")


@pytest.mark.parametrize(("source", "truth"), [("clevr_math", "three"), ("geomath", " "), ("clevr_math", 3)])
def test_a_truth_that_cannot_be_judged_against_is_the_users_error(source, truth):
    with pytest.raises(TruthError):
        check_truth(source, truth)
    with pytest.raises(TruthError):
        judged(source, "3", truth)
