"""Verifiable rewards for the three Reason-RFT task types. Text in, numbers out; no torch, no verl.

`compute_score` has the signature that verl's reward workers call; point verl at it with

    reward.custom_reward_function.path=pkg://ekipl_reward
    reward.custom_reward_function.name=compute_score
"""

from ekipl_reward.errors import RewardError, TruthError, UnknownTaskError
from ekipl_reward.options import OptionError, RewardOptions
from ekipl_reward.score import compute_score, evaluate
from ekipl_reward.tasks import TASKS, check_truth, task_of

__all__ = [
    "TASKS",
    "OptionError",
    "RewardError",
    "RewardOptions",
    "TruthError",
    "UnknownTaskError",
    "check_truth",
    "compute_score",
    "evaluate",
    "task_of",
]
