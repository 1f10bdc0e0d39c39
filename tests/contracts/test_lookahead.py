"""The order of verl's data loader, known one batch ahead and without moving it."""

import pytest
import torch
from omegaconf import OmegaConf

pytestmark = pytest.mark.contract


class Rows(torch.utils.data.Dataset):
    """Stands for verl's dataset: rows as they come out of it."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"raw_prompt": [{"role": "user", "content": f"row {index}"}], "data_source": "clevr_math", "id": index}


def make_loader(count, batch, workers, shuffle, seed):
    """As verl's PPOTrainer._init_dataloader makes it."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.ppo.utils import create_rl_sampler

    data = OmegaConf.create({"shuffle": shuffle, "seed": seed, "train_batch_size": batch})
    rows = Rows(count)
    loader = StatefulDataLoader(
        dataset=rows,
        batch_size=batch,
        num_workers=workers,
        drop_last=True,
        collate_fn=list,
        sampler=create_rl_sampler(data, rows),
    )
    return data, rows, loader


def ids(batch):
    return [row["id"] for row in batch]


class Trainer:
    """As much of verl's trainer as hands out batches (PPOTrainer._fetch_one_gen_batch)."""

    def __init__(self, count=23, batch=4, workers=0, shuffle=True, seed=5, steps=40):
        data, self.train_dataset, self.train_dataloader = make_loader(count, batch, workers, shuffle, seed)
        self.config = OmegaConf.create({"data": data})
        self.global_steps, self.total_training_steps, self._iterator = 0, steps, None

    def next_batch(self):
        self.global_steps += 1
        try:
            self._iterator = self._iterator or iter(self.train_dataloader)
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self.train_dataloader)
            return next(self._iterator)


def foretold(trainer):
    from ekipl_rollout.on_verl.lookahead import next_rows

    return [question.messages[0].parts[0] for question, _ in next_rows(trainer)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("shuffle", "seed"), [(True, 5), (True, None), (False, None)])
def test_the_next_batch_is_the_one_that_was_foretold_over_several_epochs(workers, shuffle, seed):
    trainer = Trainer(workers=workers, shuffle=shuffle, seed=seed)
    expected = None
    for _ in range(13):  # 23 rows in batches of 4: five an epoch
        batch = [f"row {i}" for i in ids(trainer.next_batch())]
        assert expected in (None, batch)
        expected = foretold(trainer)
        assert foretold(trainer) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_looking_moves_nothing(workers):
    looked, alone = Trainer(workers=workers), Trainer(workers=workers)
    for _ in range(12):
        assert ids(looked.next_batch()) == ids(alone.next_batch())
        foretold(looked)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("saved_at", [1, 4, 5, 7])
def test_it_is_foretold_after_a_resume_too(workers, saved_at):
    first = Trainer(workers=workers)
    for _ in range(saved_at):
        first.next_batch()
        foretold(first)
    state = first.train_dataloader.state_dict()
    second = Trainer(workers=workers)
    second.train_dataloader.load_state_dict(state)
    second.global_steps = saved_at
    expected = None
    for _ in range(8):
        batch = [f"row {i}" for i in ids(second.next_batch())]
        assert batch == [f"row {i}" for i in ids(first.next_batch())]
        assert expected in (None, batch)
        expected = foretold(second)


def test_a_batch_of_several_fetches_is_foretold_whole():
    trainer = Trainer(batch=2)
    trainer.config.data.train_batch_size, trainer.config.data.gen_batch_size = 6, 2
    trainer.next_batch()
    expected = foretold(trainer)
    assert expected == [f"row {i}" for _ in range(3) for i in ids(trainer.next_batch())]


def test_after_the_last_step_comes_nothing():
    trainer = Trainer(steps=2)
    trainer.next_batch()
    assert foretold(trainer)
    trainer.next_batch()
    assert foretold(trainer) == []


def test_a_question_of_a_row_that_comes_next_is_the_one_that_the_worker_will_ask():
    from ekipl_rollout.on_verl.lookahead import next_rows
    from ekipl_rollout.prompt import question_of

    trainer = Trainer()
    trainer.next_batch()
    (question, data_source), *_ = next_rows(trainer)
    row = trainer.next_batch()[0]
    assert question.messages == question_of(row["raw_prompt"], "u", 2).messages
    assert (question.step, data_source) == (2, "clevr_math")


def test_verls_trainer_still_has_what_is_read():
    import inspect

    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._init_dataloader)
    assert "self.train_dataloader = StatefulDataLoader(" in source
    assert "sampler=create_rl_sampler(self.config.data, self.train_dataset)" in source
    assert "drop_last=True" in source
    assert "self.total_training_steps = total_training_steps" in source
    assert "self.train_dataloader_it = iter(self.train_dataloader)" in inspect.getsource(
        PPOTrainer._fetch_one_gen_batch
    )
