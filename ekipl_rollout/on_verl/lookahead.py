"""Which rows come next: the order of verl's data loader, read without moving it.

verl's trainer hands out a batch when it needs one and says nothing about the next. But its order is decided: the loader's
`state_dict()`, which verl saves with every checkpoint, holds where its sampler stands, and a second sampler that is set to
that place gives the next indices. Nothing of verl is changed or moved. A trainer that fetches more rows within a step
(replacing failed or filtered groups) takes them from the front of what was asked ahead; they are found all the same,
because rows are recognised by their content.
"""

from collections.abc import Mapping
from typing import Any

from torchdata.stateful_dataloader.sampler import BatchSampler
from verl.trainer.ppo.utils import create_rl_sampler

from ekipl_rollout.answer import Question
from ekipl_rollout.errors import ExpertError
from ekipl_rollout.prompt import question_of

_SAMPLER = "_sampler_iter_state"


def next_indices(loader: Any, sampler: Any, fetches: int) -> list[int]:
    """Indices of the rows that `loader` (a StatefulDataLoader that has given out a batch) gives in its next `fetches`
    batches. `sampler` is one like the loader's, over the same rows."""
    state, behind = _sampler_state(loader.state_dict())
    batches = BatchSampler(sampler, loader.batch_size, loader.drop_last)
    iterator = iter(batches)
    iterator.load_state_dict(state)
    found: list[int] = []
    for number in range(behind + fetches):
        try:
            batch = next(iterator)
        except StopIteration:  # the next epoch, as the trainer begins it
            for _ in range(2 if loader.num_workers else 1):  # with workers torch draws an order that it throws away
                iterator = iter(batches)
            batch = next(iterator)
        found += batch if number >= behind else []
    return found


def _sampler_state(state: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """(state of the batch sampler's iterator, batches that were given out since). A loader with worker processes keeps
    it in a snapshot."""
    if _SAMPLER in state:
        return state[_SAMPLER], 0
    snapshot = state["_snapshot"]
    return snapshot["_main_snapshot"][_SAMPLER], state["_steps_since_snapshot"]


def next_rows(trainer: Any) -> list[tuple[Question, str]]:
    """(question, data source) of the rows of the step after the trainer's current one; none after the last step."""
    step = trainer.global_steps + 1
    if step > trainer.total_training_steps:
        return []
    data, rows = trainer.config.data, trainer.train_dataset
    fetches = data.train_batch_size // (data.get("gen_batch_size", None) or data.train_batch_size)
    questions = []
    for index in next_indices(trainer.train_dataloader, create_rl_sampler(data, rows), fetches):
        row = rows[index]
        try:
            questions.append((question_of(row["raw_prompt"], f"ahead-{index}", step), str(row.get("data_source"))))
        except ExpertError:  # the worker will say so when the row comes
            continue
    return questions
