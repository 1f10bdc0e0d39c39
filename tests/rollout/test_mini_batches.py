"""Mini-batches are cut as verl cuts them, and those that teach nothing are left out."""

import pytest

from ekipl_rollout.on_verl.mini_batches import teaching_rows

T, F = True, False


@pytest.mark.parametrize(
    ("teaches", "mini_batch", "ranks", "kept"),
    [
        pytest.param([F, T, F, F, T, T], 2, 1, [0, 1, 4, 5], id="one rank: consecutive rows"),
        pytest.param([F, F, F, F], 4, 1, [], id="nothing teaches"),
        pytest.param([F, F, F, T], 4, 1, [0, 1, 2, 3], id="one update a step"),
        pytest.param(
            [T, F, F, F, F, F, F, F], 4, 2, [0, 1, 4, 5], id="two ranks: a mini-batch has rows of both halves"
        ),
        pytest.param([F, F, F, F, F, F, T, F], 4, 2, [2, 3, 6, 7], id="the second rank's row keeps the first rank's"),
    ],
)
def test_rows_stay_whose_mini_batch_teaches(teaches, mini_batch, ranks, kept):
    assert teaching_rows(teaches, mini_batch, ranks) == kept


@pytest.mark.parametrize(("rows", "mini_batch", "ranks"), [(5, 2, 1), (5, 1, 2), (6, 3, 2), (8, 6, 2)])
def test_what_does_not_divide_is_told(rows, mini_batch, ranks):
    with pytest.raises(
        ValueError, match=f"{rows} rows cannot be cut into mini-batches of {mini_batch} over {ranks} ranks"
    ):
        teaching_rows([True] * rows, mini_batch, ranks)
