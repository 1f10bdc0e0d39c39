"""One group from its file -> what the page shows of it: outcome, advantages, weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from ekipl_rollout.answer import POLICY
from ekipl_rollout.keep.spread import is_silent, mean_and_std
from ekipl_rollout.settings.advantage import AdvantageSettings

EPSILON = 1e-6  # as ekipl_rollout.on_verl.advantage and verl's GRPO; a contract test compares

OUTCOMES = {
    "policy_never": "policy never right",
    "policy_some": "policy sometimes right",
    "policy_always": "policy always right",
    "rescued": "policy never right, a kept expert is",
    "nobody": "nobody right",
    "silent": "no gradient: all advantages are 0",
    "short": "fewer than G kept",
}
"""What can be said of a group -> in words. A group has several of them."""


def is_right(answer: Mapping[str, Any]) -> bool:
    parts = answer.get("parts") or {}
    return float(parts.get("accuracy", parts.get("acc", 0.0)) or 0.0) >= 1.0


def with_advantages(
    group: Mapping[str, Any],
    rule: AdvantageSettings | None,
    weighted: bool,
    learned: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """The group with `advantage` and `weight` of each answer, best first within kept and dropped.

    `learned`: [advantage, weight] by session, as the update had them; they count. Else the advantage of a kept answer
    follows from the rewards and `rule`; without a rule, and for dropped answers, which are not trained on, it is None. Not `weighted`: a
    kept answer counts once.
    """
    answers = [dict(answer) for answer in group["answers"]]
    statistics = {
        "selected": mean_and_std([answer["score"] for answer in answers if answer["kept"]]),
        "all": mean_and_std([answer["score"] for answer in answers]),
        "policy_only": mean_and_std([answer["score"] for answer in answers if answer["source"] == POLICY]),
    }
    for answer in answers:
        answer["right"] = is_right(answer)
        if told := (learned or {}).get(str(answer.get("session"))):
            answer["advantage"], answer["weight"] = told
        answer.setdefault(
            "advantage", advantage(answer["score"], statistics, rule) if answer["kept"] and rule else None
        )
        answer.setdefault("weight", 1.0 if answer["kept"] and not weighted else None)
    answers.sort(
        key=lambda answer: (not answer["kept"], -answer["score"], answer["source"] != POLICY, answer["source"])
    )
    return {**group, "answers": answers, "statistics": statistics, "learned": bool(learned)}


def advantage(score: float, statistics: Mapping[str, tuple[float, float]], rule: AdvantageSettings) -> float:
    """(R - mean) / std; `statistics`: (mean, std) by scope."""
    scale = 1.0 if rule.std == "none" else statistics[rule.std][1] + EPSILON
    return (score - statistics[rule.baseline][0]) / scale


def summary(group: Mapping[str, Any], num_kept: int, rule: AdvantageSettings | None) -> dict[str, Any]:
    """The group as a line of a list: no texts. `answers`: [source, reward, kept, right, reason for the drop]."""
    shown = with_advantages(group, rule, weighted=False)
    return {
        **{key: group.get(key) for key in ("uid", "step", "row", "data_source", "truth")},
        "outcomes": outcomes(shown, num_kept),
        "answers": [[a["source"], a["score"], a["kept"], a["right"], a.get("dropped", "")] for a in shown["answers"]],
    }


def outcomes(group: Mapping[str, Any], num_kept: int) -> list[str]:
    """Keys of OUTCOMES that hold for a group `with_advantages`."""
    answers = group["answers"]
    kept = [answer for answer in answers if answer["kept"]]
    policy = [answer["right"] for answer in answers if answer["source"] == POLICY]
    known = [answer["advantage"] for answer in kept if answer["advantage"] is not None]
    silent = all(abs(a) < 1e-9 for a in known) if known else is_silent([answer["score"] for answer in kept])
    holds = {
        "policy_never": not any(policy),
        "policy_some": any(policy) and not all(policy),
        "policy_always": bool(policy) and all(policy),
        "rescued": not any(policy) and any(answer["right"] for answer in kept if answer["source"] != POLICY),
        "nobody": not any(answer["right"] for answer in answers),
        "silent": silent,
        "short": len(kept) < num_kept,
    }
    return [name for name, is_so in holds.items() if is_so]
