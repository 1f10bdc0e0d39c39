"""The released rules beside the original: its worked cases, and its patterns restated, on texts made of their pieces.

Which field of a case is which call stands in docs/rewards.md and is run by test_docs.py.
"""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_reward import compute_score, evaluate
from ekipl_reward.released import spatial, tags

PIECES = [
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<answer",
        "answer>",
        "</",
        " ",
        "\n",
        "\r\n",
        "\u00a0",
        "\u200b",
        "\x1c",
        "a",
    ),
    *(
        "f(",
        "f",
        "(",
        "a,",
        ",",
        " b",
        "b",
        "'",
        ")",
        "(a, b)",
        "f(a, b)",
        "f(a,b)",
        "g(é,\n'c')",
        "x.",
        "_",
        "３",
        '"',
        "-",
    ),
]
texts = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


@settings(max_examples=1500, deadline=None)
@given(text=texts)
def test_answer_and_format_are_found_where_the_patterns_find_them(text):
    for over_lines in (True, False):
        match = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL if over_lines else 0)
        assert tags.first_answer(text, over_lines) == (match and match.group(1).strip())
    pattern = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
    for response in (text, f"<think>{text}</think>{text}<answer>{text}</answer>", f"<think>{text}</answer>"):
        assert tags.wears_the_format(response) == (pattern.fullmatch(response) is not None)


@settings(max_examples=1500, deadline=None)
@given(text=texts)
def test_calls_are_found_backwards_as_the_pattern_finds_them_forwards(text):
    forwards = re.findall(r"(\w+)\((\w+),\s*'?(\w+)'?\)", text)
    assert [tuple(part[::-1] for part in reversed(call)) for call in spatial.calls(text)] == forwards


def accuracy(answer, truth, **options):
    return compute_score("geomath", answer, truth, rules="released", structure="tolerance", **options)["accuracy"]


@pytest.mark.parametrize(
    ("said", "truth"),
    [
        ("nan", "1000"),
        ("infinity", "infinity"),
        ("5", "inf"),
        ("nan", "nan"),
        ("5e-324", "5e-324"),
        ("0", "0"),
        ("-1e308", "1e308"),
    ],
)
def test_what_is_nan_or_a_division_by_zero_there_is_zero_here(said, truth):
    assert accuracy(f"<answer>{said}</answer>", truth) == 0.0


def test_a_nan_is_not_looked_at_again_by_math_verify():
    assert accuracy("nan", "nan") == 0.0


def test_blanks_around_a_truth_matter_to_the_evaluation_inside_tags_only():
    assert evaluate("geomath", "<answer>A</answer>", " A ", rules="released") == 0.0
    assert evaluate("geomath", "A", " A ", rules="released") == 1.0


def test_an_exception_there_forgoes_the_rule_for_proprietary_models():
    assert evaluate("geomath", "it is ３ then", "３", rules="released", enhanced=True) == 0.0
    assert evaluate("geomath", "it is A then", "A", rules="released", enhanced=True) == 1.0
    assert evaluate("clevr_math", "it is A then", "A", rules="released", enhanced=True) == 0.0


@pytest.mark.parametrize("text", ["The answer is **3**", "so **3** it is", "The total of 2 and 1 is **3**."])
def test_bold_numbers_are_seen_by_the_fallback(text):
    assert compute_score("clevr_math", text, "3", rules="released")["accuracy"] == 1.0


def test_a_long_response_without_tags_is_looked_through():
    text = "there are five cubes and two are taken away " * 300
    assert compute_score("clevr_math", f"{text} so 3", "3", rules="released")["accuracy"] == 1.0
