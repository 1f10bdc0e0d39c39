"""What a judge says of an answer: how right it is, and which rule said so."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """Example: Verdict(0.5, "within_tolerance")."""

    accuracy: float
    """1 is right, 0 is wrong; partial credit between, below 0 only with spatial=penalty."""

    rule: str
    """The rule that fired: a key of RULES. With accuracy 0 it is the reason."""


RULES: dict[str, str] = {
    "same_number": "both are the same number",
    "another_number": "the answer is another number",
    "within_tolerance": "the number is within 20 % of the truth: 1 up to 5 %, a cosine down to 0 from there",
    "beyond_tolerance": "the number is 20 % or more away from the truth",
    "not_a_number": "the truth is a number and the answer is not one",
    "same_choice": "the same letter was chosen",
    "another_choice": "another letter was chosen",
    "not_a_choice": "the truth is a letter and the answer does not choose exactly one",
    "same_text": "both are the same text",
    "another_text": "the texts differ",
    "equal_expression": "math-verify finds the two expressions equal",
    "another_expression": "math-verify finds the two expressions different, or cannot read one of them",
    "expression_too_hard": "an expression is too large to compare, or took too long",
    "all_calls": "every call matches exactly and none is too many",
    "some_calls": "calls were paired with those of the truth, not all of them exactly",
    "no_call_matches": "no call has a function of the truth",
    "no_calls": "the answer holds no readable call",
    "no_answer_tags": "there is no complete answer block after the thinking",
    "answer_too_long": "the answer is too long to be one",
    "not_text": "the response is not a text",
    "not_finite": "the judge of this task returned no finite number",
}
"""Rule -> what it means. A registered task may return rules of its own."""
