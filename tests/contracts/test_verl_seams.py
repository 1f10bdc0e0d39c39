"""Every name and signature of verl 0.9.1, TransferQueue and Ray that this package hangs on.

A verl upgrade should fail here, in seconds, and not at step 40 of somebody's run.
"""

import inspect
from importlib.metadata import version

import pytest

pytestmark = pytest.mark.contract


def parameters(method) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name != "_ray_trace_ctx"]  # Ray adds this one


@pytest.fixture(scope="module")
def worker():
    from ekipl_rollout.on_verl import worker

    return worker


def test_the_versions_are_the_ones_this_was_written_for():
    assert version("verl") == "0.9.1"
    assert version("transferqueue") == "0.1.11"


@pytest.mark.parametrize(
    "name",
    ["_run_prompt", "_agent_loop_postprocess", "_compute_score", "_compute_multi_modal_inputs", "generate_sequences"],
)
def test_verl_still_has_the_methods_that_our_worker_overrides(worker, name):
    theirs, ours = getattr(worker._PlainWorker, name), getattr(worker.EkiplWorker, name)
    assert parameters(ours) == parameters(theirs)


def test_verl_still_creates_workers_from_the_attribute_that_we_set(worker):
    from verl.experimental.agent_loop.agent_loop import AgentLoopManager

    assert "self.agent_loop_workers_class.options(" in inspect.getsource(AgentLoopManager._init_agent_loop_workers)


def test_verl_still_passes_session_and_prompt_to_a_session(worker):
    source = inspect.getsource(worker._PlainWorker._run_prompt)
    assert "session_id=i" in source
    assert "**prompt" in source
    assert "__rollout_n__" in source


def test_a_trajectory_still_carries_step_and_validate():
    from verl.experimental.agent_loop.agent_loop import get_trajectory_info

    source = inspect.getsource(get_trajectory_info)
    assert '"step"' in source
    assert '"validate"' in source


def test_an_agent_loop_output_still_has_the_fields_that_we_copy(worker):
    fields = set(worker.AgentLoopOutput.model_fields)
    assert {
        "prompt_ids",
        "response_ids",
        "response_mask",
        "response_logprobs",
        "routed_experts",
        "multi_modal_data",
        "reward_score",
        "metrics",
        "extra_fields",
    } <= fields


def test_the_replay_buffer_still_hands_over_prompts_just_before_it_clears_them():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert parameters(ReplayBuffer._materialize_batch) == [
        "self",
        "partition_id",
        "selected_prompt_uids",
        "partition_snapshot",
    ]
    assert list(inspect.signature(ReplayBuffer.sample.__wrapped__).parameters) == [
        "self",
        "global_steps",
        "partition_id",
        "batch_size",
    ]
    assert "poll_interval" in inspect.signature(ReplayBuffer.__init__).parameters


def test_the_replay_buffer_still_asks_which_groups_to_replace_and_then_evicts_them():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert parameters(ReplayBuffer._dapo_filtered_keys) == ["self", "partition_id"]
    assert parameters(ReplayBuffer._evict_terminal_groups) == [
        "self",
        "global_steps",
        "partition_id",
        "eviction_reasons",
    ]
    assert "dapo_uids, dapo_counts = self._dapo_filtered_keys(" in inspect.getsource(
        ReplayBuffer._terminal_eviction_reasons
    )
    assert {"filter_groups_metric", "train_batch_size", "gen_batch_size"} <= set(parameters(ReplayBuffer.__init__))


def test_the_dataloader_still_draws_rows_one_by_one_for_dynamic_sampling():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._init_dataloader)
    assert 'filter_groups.get("enable", False)' in source
    assert "self.config.data.gen_batch_size = 1" in source


def test_the_trainer_still_makes_its_sampler_in_its_constructor_and_goes_through_the_methods_that_we_override():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    assert "self.replay_buffer = self._build_replay_buffer()" in inspect.getsource(PPOTrainer.__init__)
    step = inspect.getsource(PPOTrainer._step_once)
    assert step.index("self._compute_advantage(") < step.index("self._update_actor(")
    assert "select_fields=fields)" in inspect.getsource(PPOTrainer._compute_advantage)
    for method in (PPOTrainer._compute_advantage, PPOTrainer._update_actor):
        assert parameters(method) == ["self", "batch", "metrics"]


@pytest.mark.parametrize(("ranks", "mini_batch"), [(1, 4), (1, 24), (2, 4), (2, 8), (4, 8)])
def test_verl_still_cuts_mini_batches_out_of_the_batch_as_we_take_it_to(ranks, mini_batch):
    """By verl's own chunk (each rank's part of the batch) and make_iterator (a rank's share of each mini-batch)."""
    import torch
    from tensordict import TensorDict
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils import tensordict_utils
    from verl.workers.engine_workers import TrainingWorker

    from ekipl_rollout.on_verl.mini_batches import teaching_rows

    def rows_of(meta):
        rows = TensorDict({"row": torch.tensor([int(key) for key in meta.keys])}, batch_size=len(meta))  # noqa: SIM118
        parts = tensordict_utils.make_iterator(rows, mini_batch // ranks, 1, 0, {"shuffle": False})
        return [part["row"].tolist() for part in parts]

    batch = KVBatchMeta(partition_id="train", keys=[str(row) for row in range(24)], tags=[{}] * 24)
    cut = [sum(shares, []) for shares in zip(*map(rows_of, batch.chunk(ranks)), strict=True)]
    for teacher in range(24):
        (with_it,) = [rows for rows in cut if teacher in rows]
        assert teaching_rows([row == teacher for row in range(24)], mini_batch, ranks) == sorted(with_it)

    update = inspect.getsource(PPOTrainer._update_actor)
    assert "ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n" in update
    assert '"dataloader_kwargs": {"shuffle": self.config.actor_rollout_ref.actor.shuffle}' in update
    assert "worker_group._dispatch_info[role] = dp_rank_mapping" in inspect.getsource(PPOTrainer._balance_batch)
    source = inspect.getsource(TrainingWorker.train_mini_batch)
    assert "mini_batch_size // self.engine.get_data_parallel_size()" in source and "make_iterator(" in source


def test_a_custom_sampler_still_gets_its_kwargs_from_the_config():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer._build_replay_buffer)
    assert "sampler_kwargs=sampler_config.sampler_kwargs" in source
    assert "load_extern_type(custom_sampler.path, custom_sampler.name)" in source
    assert "refill_fn=self._add_prompts_to_generate" in source, "how we find the trainer"


def test_the_trainer_still_knows_its_last_step_and_its_manager_by_these_names():
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    source = inspect.getsource(PPOTrainer.fit)
    assert "is_last_step = self.global_steps >= self.total_training_steps" in source
    assert "self.agent_loop_manager = agent_loop_manager" in source


def test_the_trainer_still_computes_advantages_from_uid_and_rewards():
    from verl.trainer.ppo.ray_trainer import compute_advantage

    source = inspect.getsource(compute_advantage)
    assert 'adv_kwargs["index"] = data.non_tensor_batch["uid"]' in source
    assert '"token_level_rewards": data.batch["token_level_rewards"]' in source


def test_padding_rows_are_still_known_by_their_uid():
    from verl.trainer.ppo import padding_utils

    assert 'f"pad{uuid.uuid4().hex}"' in inspect.getsource(padding_utils)


def test_main_still_has_the_parts_that_train_calls():
    from verl.trainer import main_ppo

    for name in (
        "TaskRunnerV1",
        "auto_set_device",
        "need_critic",
        "need_reference_policy",
        "run_ppo",
        "validate_config",
    ):
        assert hasattr(main_ppo, name)
    source = inspect.getsource(main_ppo.run_ppo)
    assert 'ray_init_kwargs.get("runtime_env", {})' in source


def test_the_task_runner_still_makes_its_manager_in_a_method_and_keeps_what_we_close():
    from verl.trainer.main_ppo import TaskRunnerV1

    runner = TaskRunnerV1.__ray_metadata__.modified_class
    run = inspect.getsource(runner.run)
    assert "self.init_agent_loop_manager()" in run
    assert "self.trainer = trainer_cls(config=config)" in run
    made = inspect.getsource(runner.init_agent_loop_manager)
    assert "self.agent_loop_manager = agent_loop_manager_cls.create(" in made
    assert parameters(runner.run) == ["self", "config"]


def test_the_manager_still_deals_rows_out_in_chunks_and_says_when_it_validates():
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

    source = inspect.getsource(AgentLoopManagerTQ.generate_sequences)
    assert "prompts.chunk(len(self.agent_loop_workers))" in source
    assert "zip(self.agent_loop_workers, chunkes, strict=False)" in source
    worker = inspect.getsource(AgentLoopWorkerTQ.__ray_metadata__.modified_class.generate_sequences)
    assert 'batch["validate"] if "validate" in batch' in worker
    assert 'batch["global_steps"]' in worker


def test_the_file_logger_still_takes_its_path_from_the_environment():
    from verl.utils.tracking import FileLogger

    assert 'os.getenv("VERL_FILE_LOGGER_PATH"' in inspect.getsource(FileLogger)


def test_transfer_queue_still_has_the_calls_that_we_make():
    import transfer_queue as tq

    assert "partition_id" in inspect.signature(tq.kv_list).parameters
    assert {"key", "partition_id", "tag"} <= set(inspect.signature(tq.async_kv_put).parameters)
    assert {"keys", "partition_id", "select_fields"} <= set(inspect.signature(tq.kv_batch_get).parameters)
    assert {"keys", "partition_id", "fields"} <= set(inspect.signature(tq.kv_batch_put).parameters)
    assert inspect.signature(tq.kv_batch_put).return_annotation is tq.KVBatchMeta, "it replaces the batch"
    assert {"keys", "partition_id"} <= set(inspect.signature(tq.kv_clear).parameters)
    assert parameters(tq.KVBatchMeta.select_keys) == ["self", "keys_to_select"]


def test_the_actors_workers_still_take_a_loss_function_from_the_trainer():
    from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

    assert parameters(ActorRolloutRefWorker.set_loss_fn) == ["self", "loss_fn"]
    assert "self.actor.set_loss_fn(loss_fn=loss_fn)" in inspect.getsource(ActorRolloutRefWorker.set_loss_fn)
    assert "self.loss_fn = loss_fn" in inspect.getsource(TrainingWorker.set_loss_fn)
