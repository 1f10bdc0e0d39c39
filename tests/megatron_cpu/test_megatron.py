"""verl's Megatron engine with our bridges on a CPU: beside transformers, and beside verl's FSDP engine."""

import pytest

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("model", ["untied", "tied", "qwen2_5"])
@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_log_probabilities_of_answers_about_pictures_are_those_of_transformers(alone, model, rows):
    assert alone["log_probs"][f"{model} {rows}"] < 1e-6


def test_positions_that_overlook_the_pictures_would_be_noticed(alone):
    assert alone["log_probs"]["positions along the text"] > 1e-3


@pytest.mark.parametrize("model", ["untied", "tied", "qwen2_5"])
def test_vllm_is_sent_the_checkpoint_bit_by_bit(alone, model):
    assert alone["export"][model] == 0.0


@pytest.mark.parametrize("case", ["untied selected", "untied all", "tied selected"])
def test_an_ekipl_update_is_that_of_the_fsdp_engine(alone, case):
    same_update(alone["updates"][case])
    same_losses([alone["updates"][case]])
    assert alone["updates"][case]["moved"]["log_probs"] > 0.1, "there was something to compare"


def same_update(found: dict) -> None:
    """Learning rate and gradient norm of three steps; log-probabilities and weights after them."""
    assert found["names"]
    assert found["steps"] < 1e-5
    assert found["log_probs"] is None or found["log_probs"] < 2e-5
    assert found["weights"] < 1e-7  # of 1e-3 that the average weight has moved


def same_losses(ranks: list[dict]) -> None:
    """Of three steps; data-parallel ranks have a share each, of which the whole is the mean."""
    for shares in zip(*(rank["losses"] for rank in ranks), strict=True):
        assert sum(ours for ours, _ in shares) / len(shares) == pytest.approx(shares[0][1], abs=1e-5)


@pytest.mark.parametrize("model", ["untied", "tied"])
@pytest.mark.parametrize("layout", ["TP 2", "PP 2", "DP 2"])
def test_two_processes_find_what_one_finds(together, layout, model):
    ranks = [found[f"{layout} {model}"] for found in together]
    heard = [rank["log_probs"] for rank in ranks if rank["log_probs"] is not None]
    assert len(heard) == {"TP 2": 1, "PP 2": 1, "DP 2": 2}[layout], "those with the output layer"
    assert max(heard) < 1e-6
    for rank in ranks:
        assert rank["export"] == 0.0
        same_update(rank["update"])
    same_losses([rank["update"] for rank in ranks if rank["update"]["losses"]])


def test_a_run_that_goes_on_from_a_checkpoint_takes_the_same_step(alone):
    found = alone["resumed"]
    assert found["adam_steps"] == [2]
    assert found["numbers"], "learning rate, loss and gradient norm"
    assert found["weights"] == 0.0


def test_full_recomputation_includes_the_vision_tower_and_changes_no_gradient(alone):
    assert alone["recomputed"]["vision"]
    assert alone["recomputed"]["grad_norm"] < 1e-5
