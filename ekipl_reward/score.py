"""R = R_format + R_accuracy (paper, Eq. 7), with the parts beside the sum."""

from typing import Any

from ekipl_reward.extract import after_thinking, last_answer, wears_the_format
from ekipl_reward.options import RewardOptions, read_options
from ekipl_reward.released import rules as released
from ekipl_reward.released import tags as released_tags
from ekipl_reward.tasks import TASKS, task_of

MAX_PARSED_CHARS = 200  # of the parsed answer that is kept for logs


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **options: Any
) -> dict[str, Any]:
    """Score one response the way verl asks for it. `options` are the fields of RewardOptions.

    Returns `score` (what GRPO uses), `format` and `accuracy`, `acc` (what verl's validation averages), `task`, `parsed`
    (the answer that was judged) and `reason` ("" or why accuracy is 0).

    Example:
        ("clevr_math", "<think> 5 - 2 </think><answer> 3 </answer>", "3") -> score 2.0, format 1.0, accuracy 1.0
    """
    chosen = read_options(**options)
    task = task_of(data_source)
    response = solution_str if isinstance(solution_str, str) else ""
    judge = _released if chosen.rules == "released" else _paper
    formatted, accuracy, parsed = judge(task, response, ground_truth, chosen)
    shorter = chosen.length_weight * min(1.0, len(response) / chosen.length_limit)
    reason = "" if accuracy else ("no_answer_tags" if parsed is None else "wrong_answer")
    return {
        "score": chosen.format_weight * formatted + chosen.accuracy_weight * accuracy - shorter,
        "format": formatted,
        "accuracy": accuracy,
        "acc": accuracy,
        "task": task,
        "parsed": (parsed or "")[:MAX_PARSED_CHARS],
        "reason": reason,
    }


def _paper(task: str, response: str, truth: str, options: RewardOptions) -> tuple[float, float, str | None]:
    answer = last_answer(response)
    if answer is None and not options.answer_in_tags:
        answer = after_thinking(response).strip()
    accuracy = 0.0 if answer is None else TASKS[task].accuracy(answer, truth, options)
    return float(wears_the_format(response)), accuracy, answer


def _released(task: str, response: str, truth: str, options: RewardOptions) -> tuple[float, float, str | None]:
    accuracy = released.accuracy(task, response, truth, options.structure, options.spatial)
    return float(released_tags.wears_the_format(response)), accuracy, released_tags.answer_or_all(response)


def evaluate(
    data_source: str, solution_str: str, ground_truth: str, *, enhanced: bool = False, **options: Any
) -> float:
    """The metric of the paper's Table 1 for the split behind `data_source`, in [0, 1].

    With `rules=released` it is Reason-RFT's shipped evaluation, `enhanced` its extra rule for proprietary models on
    structure perception. With `rules=paper` it is the accuracy, exact for structure perception as in the table.
    """
    chosen = read_options(**options)
    task = task_of(data_source)
    response = solution_str if isinstance(solution_str, str) else ""
    if chosen.rules == "released":
        return released.evaluation(task, response, ground_truth, enhanced)
    exact = {**options, "structure": chosen.structure if options.get("structure") else "exact"}
    return compute_score(data_source, response, ground_truth, **exact)["accuracy"]
