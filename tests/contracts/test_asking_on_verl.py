"""The parts of asking that hang on verl's manager and task runner, without starting either."""

import asyncio

import pytest
import torch
from tensordict import TensorDict

from ekipl_rollout.settings import AskSettings, EkiplSettings, ExpertSettings, RecordSettings

pytestmark = pytest.mark.contract


class Plain:
    """Stands for verl's task runner."""

    def __init__(self, error=None):
        self.agent_loop_manager, self.error = None, error

    def init_agent_loop_manager(self):
        self.agent_loop_manager = Manager()

    def run(self, config):
        self.init_agent_loop_manager()
        if self.error:
            raise self.error


class Manager:
    closed = 0

    def close(self):
        self.closed += 1
        raise RuntimeError("a worker is gone")


@pytest.mark.parametrize("error", [None, ValueError("training failed"), KeyboardInterrupt()])
def test_requests_are_ended_however_the_training_ends(error):
    from ekipl_rollout.on_verl.task_runner import EndsRequests

    runner = type("Runner", (EndsRequests, Plain), {})(error)
    if error:
        with pytest.raises(type(error)):
            runner.run("config")
    else:
        runner.run("config")
    assert runner.agent_loop_manager.closed == 1


@pytest.mark.parametrize(("step", "closed"), [(2, 0), (3, 1), (4, 1)])
def test_under_verls_own_task_runner_requests_are_ended_after_the_last_batch(step, closed):
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    from ekipl_rollout.on_verl.running import end_requests_after, remember_trainer, running_trainer
    from ekipl_rollout.on_verl.trainer import TrainsOnGroups

    trainer = object.__new__(get_trainer_cls("sync"))
    trainer.total_training_steps, trainer.agent_loop_manager = 3, Manager()
    remember_trainer(trainer._add_prompts_to_generate)
    assert running_trainer() is trainer
    assert isinstance(trainer, TrainsOnGroups)
    end_requests_after(step)
    assert trainer.agent_loop_manager.closed == closed


def test_a_verl_that_does_not_show_us_its_trainer_is_an_error_and_not_a_run_without_our_advantages():
    from ekipl_rollout.on_verl.running import remember_trainer

    with pytest.raises(RuntimeError, match="no method of its trainer"):
        remember_trainer(lambda: None)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("rows", [1, 4, 16, 17])
def test_rows_are_asked_ahead_by_the_worker_that_will_get_them(workers, rows):
    from ekipl_rollout.on_verl.worker import EkiplManager

    class Worker:
        def __init__(self):
            self.rows, self.ask_ahead = [], self

        def remote(self, rows):
            self.rows += rows

    manager = EkiplManager.__new__(EkiplManager)
    manager.agent_loop_workers = [Worker() for _ in range(workers)]
    manager._ask_ahead(list(range(rows)))
    dealt = TensorDict({"row": torch.arange(rows)}, batch_size=rows).chunk(workers)
    for worker, part in zip(manager.agent_loop_workers, dealt, strict=False):
        assert worker.rows == part["row"].tolist()
    assert sum(len(worker.rows) for worker in manager.agent_loop_workers) == rows


def test_a_trainer_that_cannot_be_read_ends_asking_ahead_and_not_the_training(monkeypatch):
    from ekipl_rollout.on_verl import worker as module

    monkeypatch.setattr(module.AgentLoopManagerTQ, "generate_sequences", lambda self, prompts: None)
    manager = module.EkiplManager.__new__(module.EkiplManager)
    manager.ekipl, manager.trainer = EkiplSettings(ask=AskSettings(ahead=True)), object()
    manager.generate_sequences(TensorDict({}, batch_size=1))
    assert manager.trainer is None


def test_a_replay_and_a_run_without_experts_need_no_bounds():
    from ekipl_rollout.on_verl.shared_bounds import needs_bounds

    experts = (ExpertSettings("gpt", "openai", "m", "http://127.0.0.1:1/v1"),)
    assert needs_bounds(EkiplSettings(experts=experts))
    assert not needs_bounds(EkiplSettings(experts=experts, record=RecordSettings(mode="replay")))
    assert not needs_bounds(EkiplSettings())


def test_the_n_of_an_expert_is_its_own_where_it_has_one():
    from ekipl_rollout.on_verl.asking import Asking

    class Expert:
        def __init__(self, name):
            self.name, self.asked = name, []

        async def answer(self, question, num_answers):
            self.asked.append(num_answers)
            return []

        async def close(self): ...

    async def policy():
        return []

    async def go():
        settings = EkiplSettings(
            num_answers=8, experts=(ExpertSettings("own", "openai", "m", "http://127.0.0.1:1/v1", num_answers=2),)
        )
        asking = Asking(settings)
        asking.experts = own, other = [Expert("own"), Expert("other")]
        prompt = {"raw_prompt": [{"role": "user", "content": "How many?"}], "uid": "u", "data_source": "clevr_math"}
        await asking.ask(policy(), prompt, 1, 6, list)
        await asking.close()
        return own.asked, other.asked

    assert asyncio.run(go()) == ([2], [6])
