"""Which judge looks at a row: data source -> task -> judge. And how to add one of your own.

@register_task("colour", data_sources=["my_colours"])
def colour(answer: str, truth: str) -> float:
    return float(answer.casefold() == truth.casefold())
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from ekipl_reward import spatial_transformation, structure_perception, visual_counting
from ekipl_reward.errors import TruthError, UnknownTaskError
from ekipl_reward.extract import ANSWER_CLOSE, ANSWER_OPEN, MAX_ANSWER_CHARS, TAGS
from ekipl_reward.options import RewardOptions
from ekipl_reward.verdict import Verdict


class Judge(Protocol):
    """What a task needs. The three modules of this package are judges; so is what `register_task` makes."""

    def check_truth(self, truth: str) -> None:
        """Raises TruthError when `truth` cannot be judged against."""

    def judge(self, answer: str, truth: str, options: RewardOptions) -> Verdict:
        """`answer` is what stood in the tags, stripped; `truth` has passed check_truth. Must not raise for any answer."""


TASKS: dict[str, Judge] = {
    "visual_counting": visual_counting,
    "structure_perception": structure_perception,
    "spatial_transformation": spatial_transformation,
}
"""Task -> judge."""

REASON_RFT_TASKS = frozenset(TASKS)

DATA_SOURCES: dict[str, str] = {
    "clevr_math": "visual_counting",
    "super_clevr": "visual_counting",
    "geomath": "structure_perception",
    "geometry3k": "structure_perception",
    "trance": "spatial_transformation",
    "trance_left": "spatial_transformation",
    "trance_right": "spatial_transformation",
}
"""The paper's data sets (Table 1) -> task. A task's own name is a data source too."""


def task_of(data_source: str) -> str:
    """Task of a row. Case, `-` for `_` and everything up to the last `/` do not matter: `Reason-RFT/Clevr-Math` is
    `clevr_math`. Raises UnknownTaskError with the known names."""
    return _looked_up(data_source) if isinstance(data_source, str) else _unknown(data_source)


@lru_cache(maxsize=1024)
def _looked_up(data_source: str) -> str:
    for name in (data_source, data_source.rpartition("/")[2].strip().lower().replace("-", "_")):
        if name in TASKS:
            return name
        if name in DATA_SOURCES:
            return DATA_SOURCES[name]
    return _unknown(data_source)


def _unknown(data_source: object) -> str:
    known = ", ".join([*TASKS, *DATA_SOURCES])
    raise UnknownTaskError(
        f"no reward is known for data_source={data_source!r}. Known: {known}. "
        "For a task of your own use ekipl_reward.register_task and name its module in task_modules."
    )


def check_truth(data_source: str, truth: object, rules: str = "paper") -> None:
    """Raises TruthError when `truth` cannot be judged against, UnknownTaskError for an unknown data source.

    With `rules=released` every text can be a truth, as in Reason-RFT, and only its three tasks are known.
    """
    usable_truth(task_of(data_source), truth, rules)


def usable_truth(task: str, truth: object, rules: str = "paper") -> str:
    """The truth as it is judged against: with rules=paper stripped and out of its answer tags, if it is in some."""
    if not isinstance(truth, str):
        raise TruthError(f"the ground truth must be a string, not {type(truth).__name__} {truth!r:.80}")
    return _usable(task, truth, rules)


@lru_cache(maxsize=8192)
def _usable(task: str, truth: str, rules: str) -> str:
    if rules == "released":
        if task not in REASON_RFT_TASKS:
            raise UnknownTaskError(f"rules=released judges Reason-RFT's three tasks only; {task} needs rules=paper.")
        return truth
    bare = truth.strip()
    if bare.startswith(ANSWER_OPEN) and bare.endswith(ANSWER_CLOSE):
        bare = bare[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)].strip()
    if not bare:
        raise TruthError("the ground truth is empty")
    if len(bare) > MAX_ANSWER_CHARS:
        raise TruthError(f"the ground truth has {len(bare)} characters; an answer may have {MAX_ANSWER_CHARS}")
    if any(tag in bare for tag in TAGS):
        raise TruthError(f"the ground truth holds tags; write the bare answer, not {bare[:80]!r}")
    TASKS[task].check_truth(bare)
    return bare


@dataclass(frozen=True)
class RegisteredTask:
    """A judge made of two functions."""

    function: Callable[[str, str], "float | Verdict"]
    truth_check: Callable[[str], None] | None = None

    def check_truth(self, truth: str) -> None:
        if self.truth_check is None:
            return
        try:
            self.truth_check(truth)
        except ValueError as error:
            raise TruthError(str(error)) from error

    def judge(self, answer: str, truth: str, options: RewardOptions) -> Verdict:
        result = self.function(answer, truth)
        accuracy, rule = result if isinstance(result, Verdict) else (result, "")
        try:
            accuracy = float(accuracy)
        except (TypeError, ValueError, OverflowError):
            accuracy = math.nan
        if not math.isfinite(accuracy):  # one NaN would poison the advantages of a whole group
            return Verdict(0.0, "not_finite")
        return Verdict(accuracy, rule or ("right" if accuracy == 1 else "partly_right" if accuracy else "wrong"))


def register_task(
    name: str, data_sources: Iterable[str] = (), check_truth: Callable[[str], None] | None = None
) -> Callable[[Callable], Callable]:
    """Decorator: the function becomes the judge of task `name`.

    Args:
        name: the task; rows with `data_source` equal to it, or to one of `data_sources`, are judged by the function.
        data_sources: more names of the same task.
        check_truth: raises TruthError (or ValueError) for a truth that cannot be judged against; run on every row at start-up.

    The function gets (answer, truth), two stripped texts, and returns the accuracy, a number with 1 for right and 0 for
    wrong, or a Verdict, whose rule then shows up as the reason. Raises ValueError when a name is taken.
    """
    sources = list(data_sources)

    def register(function: Callable) -> Callable:
        if len(inspect.signature(function).parameters) != 2:
            raise ValueError(f"{function.__qualname__} must take two arguments: answer and truth")
        before = TASKS.get(name)
        again = isinstance(before, RegisteredTask) and _same_place(before.function, function)
        taken = [n for n in (name, *sources) if (n in TASKS or n in DATA_SOURCES) and not again]
        if taken:
            raise ValueError(f"register_task({name!r}): {', '.join(taken)} is taken. Choose another name.")
        TASKS[name] = RegisteredTask(function, check_truth)
        DATA_SOURCES.update(dict.fromkeys(sources, name))
        _looked_up.cache_clear()
        _usable.cache_clear()
        return function

    return register


def _same_place(one: Callable, other: Callable) -> bool:
    """True for a module that is imported or reloaded a second time."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
