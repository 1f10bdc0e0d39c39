"""verl's task runner, which ends the workers' requests also when the training fails.

After the last step our sampler has ended them (running.py); with verl's own task runner an error of the trainer ends the
workers with what they have out, and that is charged in full.
"""

from typing import Any

from verl.trainer.main_ppo import TaskRunnerV1

from ekipl_rollout.on_verl.running import close_requests


class EndsRequests:
    """Mixed into a task runner of verl."""

    agent_loop_manager: Any

    def run(self, config: Any) -> None:
        try:
            super().run(config)
        finally:
            if self.agent_loop_manager is not None:
                close_requests(self.agent_loop_manager)


class EkiplTaskRunner(EndsRequests, TaskRunnerV1.__ray_metadata__.modified_class):
    """`run_ppo(config, task_runner_class=ray.remote(EkiplTaskRunner))`"""
