"""verl's task runner with our trainer, which ends the workers' requests before Ray ends the workers.

verl has no word for "the training is over" that reaches a worker, and Ray ends actors without one. A request to an expert
that is out in that moment would be paid for and lost.
"""

import logging
from typing import Any

from verl.trainer.main_ppo import TaskRunnerV1

from ekipl_rollout.on_verl.trainer import use_our_trainer

logger = logging.getLogger(__name__)


class EndsRequests:
    """Mixed into a task runner of verl."""

    trainer: Any
    agent_loop_manager: Any

    def init_agent_loop_manager(self) -> None:
        super().init_agent_loop_manager()
        self.agent_loop_manager.trainer = self.trainer  # asking ahead needs the order of its rows

    def run(self, config: Any) -> None:
        use_our_trainer(config.trainer.v1.trainer_mode)
        try:
            super().run(config)
        finally:
            if self.agent_loop_manager is not None:
                try:
                    self.agent_loop_manager.close()
                except Exception:  # the error that ended the training must not be hidden by this one
                    logger.exception("requests to experts could not be ended; what was out is charged in full")


class EkiplTaskRunner(EndsRequests, TaskRunnerV1.__ray_metadata__.modified_class):
    """`run_ppo(config, task_runner_class=ray.remote(EkiplTaskRunner))`"""
