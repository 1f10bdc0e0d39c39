"""R = R_format + R_accuracy (paper, Eq. 7), with the parts beside the sum; and the metric of the paper's Table 1."""

from typing import Any, NamedTuple

from ekipl_reward.errors import OptionError
from ekipl_reward.extract import MAX_ANSWER_CHARS, after_thinking, format_problem, last_answer
from ekipl_reward.options import RewardOptions, read_options
from ekipl_reward.released import rules as released
from ekipl_reward.tasks import TASKS, task_of, usable_truth
from ekipl_reward.verdict import Verdict

MAX_PARSED_CHARS = 200  # of the parsed answer that is kept for logs


class Judged(NamedTuple):
    """Everything that is known about one response."""

    task: str
    format_problem: str
    """Why the format is missed; "" when it is not."""

    answer: str | None
    """What was judged; None without one."""

    verdict: Verdict

    length: int
    """Characters of the response."""

    @property
    def format(self) -> float:
        return 0.0 if self.format_problem else 1.0

    def score(self, options: RewardOptions) -> float:
        too_much = options.length_weight * min(1.0, self.length / options.length_limit)
        return options.format_weight * self.format + options.accuracy_weight * self.verdict.accuracy - too_much


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **options: Any
) -> dict[str, Any]:
    """Score one response the way verl asks for it. `options` are the fields of RewardOptions; `extra_info` is not used.

    Returns:
        score: w_f * format + w_a * accuracy - length term; what GRPO uses.
        format: 1.0 or 0.0.
        accuracy: in [0, 1]; with spatial=penalty from -0.5.
        acc: the same; what verl's validation averages.
        task: which judge looked.
        parsed: the answer that was judged, as printable text of at most 200 characters.
        reason: "" or, when accuracy is 0, which rule of ekipl_reward.verdict.RULES said so.

    Raises:
        UnknownTaskError, TruthError, OptionError: the row or the settings are wrong. No response raises.

    Example:
        ("clevr_math", "<think> 5 - 2 </think><answer> 3 </answer>", "3") -> score 2.0, format 1.0, accuracy 1.0
    """
    chosen = read_options(**options)
    judged = judge(data_source, solution_str, ground_truth, chosen)
    accuracy = judged.verdict.accuracy
    return {
        "score": judged.score(chosen),
        "format": judged.format,
        "accuracy": accuracy,
        "acc": accuracy,
        "task": judged.task,
        "parsed": printable(judged.answer or ""),
        "reason": "" if accuracy else judged.verdict.rule,
    }


def judge(data_source: str, response: str, truth: str, options: RewardOptions) -> Judged:
    """Looks at one response. `options` are checked ones (read_options)."""
    task = task_of(data_source)
    truth = usable_truth(task, truth, options.rules)
    if not isinstance(response, str):
        return Judged(task, "it is not a text", None, Verdict(0.0, "not_text"), 0)
    answer: str | None
    if options.rules == "released":
        problem, answer, verdict = released.judge(task, response, truth, options)
    else:
        problem, answer = format_problem(response), last_answer(response)
        if answer is None and not options.answer_in_tags:
            answer = after_thinking(response).strip()
        verdict = _judge_answer(task, answer, truth, options)
    return Judged(task, problem, answer, verdict, len(response))


def _judge_answer(task: str, answer: str | None, truth: str, options: RewardOptions) -> Verdict:
    if answer is None:
        return Verdict(0.0, "no_answer_tags")
    if len(answer) > MAX_ANSWER_CHARS:
        return Verdict(0.0, "answer_too_long")
    return TASKS[task].judge(answer, truth, options)


def printable(text: str) -> str:
    """The first characters of `text`, fit for any log: a lone surrogate cannot be written as UTF-8."""
    return text[:MAX_PARSED_CHARS].encode("utf-8", "replace").decode("utf-8")


def evaluate(
    data_source: str, solution_str: str, ground_truth: str, *, enhanced: bool = False, **options: Any
) -> float:
    """The metric of the paper's Table 1 for the split behind `data_source`, in [0, 1]; the table shows 100 x its mean.

    With `rules=released` it is Reason-RFT's shipped evaluation; `enhanced` adds its extra rule for proprietary models on
    structure perception. With `rules=paper` it is the accuracy, exact for structure perception as in the table.
    Raises as compute_score does.
    """
    chosen = read_options(**options)
    if chosen.rules == "released":
        task = task_of(data_source)
        truth = usable_truth(task, ground_truth, "released")
        return released.evaluation(task, solution_str if isinstance(solution_str, str) else "", truth, enhanced)
    if enhanced:
        raise OptionError("enhanced is a rule of Reason-RFT's evaluation. Set rules=released with it.")
    if not options.get("structure"):
        chosen = read_options(**{**options, "structure": "exact"})
    return judge(data_source, solution_str, ground_truth, chosen).verdict.accuracy
