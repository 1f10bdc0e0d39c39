"""R = R_format + R_accuracy (paper, Eq. 7), with the parts beside the sum."""

from typing import Any

from ekipl_reward.extract import last_answer, wears_the_format
from ekipl_reward.tasks import TASKS, task_of

MAX_PARSED_CHARS = 200  # of the parsed answer that is kept for logs


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    *,
    format_weight: float = 1.0,
    accuracy_weight: float = 1.0,
    **_verl_extras: Any,
) -> dict[str, Any]:
    """Score one response the way verl asks for it.

    Returns `score` (what GRPO uses), `format` and `accuracy` in [0, 1], `acc` (what verl's validation averages),
    `task`, `parsed` (the answer that was judged) and `reason` ("" or why accuracy is 0).

    Example:
        ("clevr_math", "<think> 5 - 2 </think><answer> 3 </answer>", "3") -> score 2.0, format 1.0, accuracy 1.0
    """
    task = task_of(data_source)
    response = solution_str if isinstance(solution_str, str) else ""
    answer = last_answer(response)
    formatted = float(wears_the_format(response))
    correct = TASKS[task].accuracy(answer, ground_truth) if answer is not None else 0.0
    reason = "" if correct else ("no_answer_tags" if answer is None else "wrong_answer")
    return {
        "score": format_weight * formatted + accuracy_weight * correct,
        "format": formatted,
        "accuracy": correct,
        "acc": correct,
        "task": task,
        "parsed": (answer or "")[:MAX_PARSED_CHARS],
        "reason": reason,
    }
