"""verl's Megatron engine with our bridge, on a CPU: beside transformers."""

import pytest

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("model", ["untied", "tied", "qwen2_5"])
@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_log_probabilities_of_answers_about_pictures_are_those_of_transformers(alone, model, rows):
    assert alone["log_probs"][f"{model} {rows}"] < 1e-6


def test_positions_that_overlook_the_pictures_would_be_noticed(alone):
    assert alone["log_probs"]["positions along the text"] > 1e-3
