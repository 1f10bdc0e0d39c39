"""verl's trainer of this process, found and made ours.

verl makes our sampler with `refill_fn`, a bound method of its trainer, and our manager in the same process later, with
no way to the trainer at all. The manager needs it to know which rows come next, the sampler to know the last step.
"""

import logging
from collections.abc import Callable
from typing import Any

from ekipl_rollout.on_verl.trainer import make_ours

logger = logging.getLogger(__name__)

_trainer: Any = None


def remember_trainer(refill_fn: Callable[..., Any] | None) -> None:
    """Called with what verl gives a sampler (PPOTrainer._build_replay_buffer: `self._add_prompts_to_generate`).

    Raises RuntimeError when that is no method of a trainer, without which groups would be trained on in verl's way only.
    """
    global _trainer
    _trainer = getattr(refill_fn, "__self__", None)
    if _trainer is None:
        raise RuntimeError(
            "verl gave our sampler no method of its trainer (`refill_fn`); this recipe is for verl 0.9.1."
        )
    make_ours(_trainer)


def running_trainer() -> Any:
    """The trainer; None before our sampler is made."""
    return _trainer


def end_requests_after(step: int) -> None:
    """After the last batch nothing is asked any more: what is out is recorded and settled while there are workers.

    verl has no word for "the training is over" that reaches a worker, and Ray ends actors without one. A request that is
    out in that moment would be paid for and lost.
    """
    if _trainer is not None and step >= _trainer.total_training_steps:
        close_requests(_trainer.agent_loop_manager)


def close_requests(manager: Any) -> None:
    """Ends what the manager's workers have out. Raises nothing: it must not cost a run its last step, or hide the error
    that ended it."""
    try:
        manager.close()
    except Exception:
        logger.exception("requests to experts could not be ended; what was out is charged in full")
