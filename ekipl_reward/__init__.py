"""Verifiable rewards for the three Reason-RFT task types. Text in, numbers out; no torch, no verl.

`compute_score` has the signature that verl's reward workers call; point verl at it with

    reward.custom_reward_function.path=pkg://ekipl_reward
    reward.custom_reward_function.name=compute_score

Everything is explained, with examples that are tests, in docs/rewards.md. Reading order: score.py, extract.py (where the answer
stands), tasks.py (which judge), one of visual_counting.py, structure_perception.py and spatial_transformation.py, options.py.
"""

from ekipl_reward.errors import HelperError, OptionError, RewardError, TruthError, UnknownTaskError
from ekipl_reward.options import RewardOptions
from ekipl_reward.score import compute_score, evaluate
from ekipl_reward.tasks import DATA_SOURCES, TASKS, check_truth, register_task, task_of
from ekipl_reward.verdict import RULES, Verdict

__all__ = [
    "DATA_SOURCES",
    "RULES",
    "TASKS",
    "HelperError",
    "OptionError",
    "RewardError",
    "RewardOptions",
    "TruthError",
    "UnknownTaskError",
    "Verdict",
    "check_truth",
    "compute_score",
    "evaluate",
    "register_task",
    "task_of",
]
