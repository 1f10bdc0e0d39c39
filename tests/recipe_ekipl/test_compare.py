import json

import pytest

from recipe.ekipl.measure.compare import main
from tests.recipe_ekipl.test_table_1 import evaluation


@pytest.fixture
def folders(tmp_path):
    better, worse = [1.0] * 8 + [0.0] * 12, [0.0] * 20
    return {
        "a": evaluation(tmp_path / "a", "ekipl", {"trance": better, "trance_left": worse}),
        "b": evaluation(tmp_path / "b", "grpo", {"trance": worse, "geomath": worse}),
        "c": evaluation(tmp_path / "c", "ekipl", {"trance": worse, "trance_left": worse}),
    }


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_two_evaluations_are_compared_row_by_row_on_the_splits_they_share(folders, capsys):
    assert main([folders["a"], folders["b"]]) == 0
    found = last_line(capsys)
    assert list(found) == ["trance"]
    assert found["trance"]["difference"] == pytest.approx(0.4)
    assert found["trance"]["p"] == pytest.approx(2 / 2**8)  # eight rows, all in one direction
    assert (found["trance"]["better"], found["trance"]["worse"], found["trance"]["rows"]) == (8, 0, 20)


def test_seeds_of_a_method_are_given_with_commas(folders, capsys):
    assert main([f"{folders['a']},{folders['c']}", folders["b"]]) == 0
    assert last_line(capsys)["trance"]["difference"] == pytest.approx(0.2)


def test_a_split_that_one_side_lacks_is_an_error(folders, capsys):
    assert main([folders["a"], folders["b"], "--splits", "trance_left"]) == 2
    assert "not evaluated by both sides: trance_left. In common: trance" in capsys.readouterr().err


def test_runs_are_paired_by_the_training_seeds_that_both_sides_have(tmp_path, capsys):
    """One base model learns a quarter of the rows and one three quarters; ours is right on two rows more with both, and has a third
    seed, a bad one."""
    right = {0: 10, 1: 30}
    theirs = [
        evaluation(tmp_path / f"b{s}", "grpo", {"trance": [1.0] * n + [0.0] * (40 - n)}, train_seed=s)
        for s, n in right.items()
    ]
    ours = [
        evaluation(tmp_path / f"a{s}", "ekipl", {"trance": [1.0] * n + [0.0] * (40 - n)}, train_seed=s)
        for s, n in {2: 0, 1: 32, 0: 12}.items()
    ]
    assert main([",".join(ours), ",".join(theirs)]) == 0
    printed = capsys.readouterr().out.splitlines()
    found = json.loads(printed[-1])["trance"]
    assert found["difference"] == pytest.approx(2 / 40)
    assert (found["runs"], found["better"], found["worse"]) == (2, 4, 0)
    assert "paired by training seed: 0, 1" in printed
