"""How a score came about, for people: what was extracted, which rule fired, what each part gave."""

from dataclasses import dataclass
from typing import Any

from ekipl_reward import spatial_transformation, structure_perception
from ekipl_reward.extract import undecorated
from ekipl_reward.numbers import parse_number, show
from ekipl_reward.options import RewardOptions, read_options
from ekipl_reward.score import Judged, evaluate, judge, printable
from ekipl_reward.tasks import usable_truth
from ekipl_reward.verdict import RULES


@dataclass(frozen=True)
class Explanation:
    """One response under one set of rules. `rows()` is what is shown."""

    options: RewardOptions
    judged: Judged
    evaluation: float
    readings: tuple[str, ...]
    """How answer and truth were read, line by line."""

    @property
    def score(self) -> float:
        return self.judged.score(self.options)

    def rows(self) -> list[tuple[str, str]]:
        """(what, text) pairs."""
        judged, options = self.judged, self.options
        answer = "none" if judged.answer is None else repr(printable(judged.answer))
        rule = judged.verdict.rule
        parts = (
            f"{options.format_weight:g} x {judged.format:g} + {options.accuracy_weight:g} x {judged.verdict.accuracy:g}"
        )
        if options.length_weight:
            parts += f" - {options.length_weight:g} x min(1, {judged.length} / {options.length_limit})"
        return [
            ("rules", options.rules),
            ("format", f"{judged.format:g}" + (f"  {judged.format_problem}" if judged.format_problem else "")),
            ("answer", answer),
            *[("read as", line) for line in self.readings],
            ("rule", rule + (f": {RULES[rule]}" if rule in RULES else "")),
            ("accuracy", f"{judged.verdict.accuracy:g}"),
            ("score", f"{self.score:g} = {parts}"),
            ("evaluation", f"{self.evaluation:g}"),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For one line of JSON."""
        return {
            "rules": self.options.rules,
            "task": self.judged.task,
            "score": self.score,
            "format": self.judged.format,
            "format_problem": self.judged.format_problem,
            "accuracy": self.judged.verdict.accuracy,
            "rule": self.judged.verdict.rule,
            "parsed": printable(self.judged.answer or ""),
            "evaluation": self.evaluation,
        }


def explain(data_source: str, response: str, truth: str, **options: Any) -> Explanation:
    """Judges one response and says how. Raises as compute_score does."""
    chosen = read_options(**options)
    judged = judge(data_source, response, truth, chosen)
    readings: list[str] = []
    if judged.answer is not None and chosen.rules == "paper":
        read = READINGS.get(judged.task)
        if read is not None:
            readings = read(judged.answer, usable_truth(judged.task, truth), chosen)
    return Explanation(chosen, judged, evaluate(data_source, response, truth, **options), tuple(readings))


def _numbers(answer: str, truth: str, options: RewardOptions) -> list[str]:
    said, expected = (parse_number(undecorated(text)) for text in (answer, truth))
    return ["; truth ".join("no number" if value is None else show(value) for value in (said, expected))]


def _structure(answer: str, truth: str, options: RewardOptions) -> list[str]:
    return [f"{_one(answer)}; truth {_one(truth)}"]


def _one(text: str) -> str:
    choice, numbers = structure_perception.parse_choice(text), structure_perception.read_quantity(undecorated(text))
    if choice:
        return f"choice {choice}"
    return " or ".join(show(n) for n in numbers) if numbers else f"expression {printable(undecorated(text))}"


def _calls(answer: str, truth: str, options: RewardOptions) -> list[str]:
    predicted, expected = (spatial_transformation.parse_calls(text) for text in (answer, truth))
    pairs = spatial_transformation.best_pairing(predicted, expected)
    assert options.spatial is not None  # read_options resolves it
    credits = spatial_transformation.CREDITS[options.spatial]
    lines = [
        f"{_call(said)} for {_call(wanted)}: {spatial_transformation.credit(said, wanted, credits):g}"
        for said, wanted in pairs
    ]
    return [*lines, f"{len(predicted)} calls, truth {len(expected)}: divided by {max(len(predicted), len(expected))}"]


def _call(call: spatial_transformation.Call) -> str:
    return f"{call[0]}({call[1]}, {call[2]})"


READINGS = {"visual_counting": _numbers, "structure_perception": _structure, "spatial_transformation": _calls}
