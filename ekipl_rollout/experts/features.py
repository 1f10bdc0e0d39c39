"""What a model turned out not to do, learned from its refusals and remembered for the life of the process.

Providers differ in what a request may hold, by model and by week, and say so with a 400 that names the parameter. A
refusal costs one free request; the same thing is never asked for again.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from ekipl_rollout.settings import ExpertSettings

_UNKNOWN = r"unsupported|not supported|unrecognized|unknown|unexpected|not permitted|not allowed|instead"
_BLAME = {
    "logprobs": r"logprobs",
    "token_ids": r"return_token_ids",
    "top_p": r"top_?p\b",
    "temperature": r"temperature",
    # named as such: a prompt that is too long is refused with the same words, and says nothing about the name
    "token_param": rf"({_UNKNOWN}).{{0,80}}max_(completion_)?tokens|max_(completion_)?tokens.{{0,80}}({_UNKNOWN})",
    "answers": r"candidate_?count|multiple (candidates|choices|completions)|only one (candidate|choice|completion)"
    r"|['\"]n['\"]|\bn\b (must|should|has to|is not|>)|(parameter|argument)[^.]{0,30}\bn\b",
}
"""What a refusal names. `answers` last: its words are the least special."""

_ONLY_ONE = re.compile(rf"multiple|only one|must be 1\b|{_UNKNOWN}", re.IGNORECASE)


@dataclass(frozen=True)
class Wish:
    """What one request asks for beside the prompt."""

    answers: int
    logprobs: bool
    token_ids: bool
    token_param: str
    top_p: bool = True
    """Whether it is sent; a value that is the provider's default anyway can be left out."""

    temperature: bool = True


class Features:
    """The widest request that a model is known, or not yet known not, to accept."""

    def __init__(self, settings: ExpertSettings):
        self._settings = settings
        theirs = settings.base_url is not None and not settings.api_version
        param = ("max_tokens" if theirs else "max_completion_tokens") if settings.token_param == "auto" else ""
        self._most = Wish(10**6, settings.logprobs, settings.token_ids, param or settings.token_param)
        self._no_other_name = settings.token_param != "auto"
        self._lonely_replies = 0
        self.several_proven = False
        """True once a reply has held more than one answer."""

        self.refused: dict[str, str] = {}
        """What was refused -> the provider's words."""

    def wish(self, answers: int) -> Wish:
        return replace(self._most, answers=min(answers, self._most.answers))

    def learn(self, sent: Wish, refusal: str) -> bool:
        """True when the refusal names something that can be asked differently, or has been learned meanwhile."""
        for name, pattern in _BLAME.items():
            if re.search(pattern, refusal, re.IGNORECASE) and self._give_up(name, sent, refusal):
                self.refused.setdefault(name, refusal)
                break
        return self.wish(sent.answers) != sent

    def learn_from_reply(self, sent: Wish, choices: int) -> None:
        """A server that ignores the number of answers gives one each time; twice in a row is no accident."""
        self.several_proven = self.several_proven or choices > 1
        self._lonely_replies = self._lonely_replies + 1 if choices == 1 < sent.answers else 0
        if self._lonely_replies == 2:
            self.only_one_answer("one answer came where more were asked for, twice")

    def only_one_answer(self, why: str) -> None:
        self._most = replace(self._most, answers=1)
        self.refused.setdefault("answers", why)

    def _give_up(self, name: str, sent: Wish, refusal: str) -> bool:
        """Takes `name` out of future wishes; False when there is nothing to take out."""
        if name == "answers":
            if sent.answers == 1:
                return False
            fewer = 1 if _ONLY_ONE.search(refusal) else sent.answers // 2
            self._most = replace(self._most, answers=min(self._most.answers, fewer))
        elif name in ("logprobs", "token_ids"):
            if not getattr(sent, name):
                return False
            self._without(name)
        elif name in ("top_p", "temperature"):
            # a value that somebody chose is not dropped: the answers would come from another distribution
            if not getattr(sent, name) or getattr(self._settings, name) != 1.0:
                return False
            self._without(name)
        else:
            return self._other_token_param(sent)
        return True

    def _without(self, name: str) -> None:
        without: dict[str, Any] = {name: False}
        self._most = replace(self._most, **without)

    def _other_token_param(self, sent: Wish) -> bool:
        if self._most.token_param != sent.token_param:
            return True  # somebody else has learned it
        if self._no_other_name:
            return False
        self._no_other_name = True
        other = "max_tokens" if sent.token_param == "max_completion_tokens" else "max_completion_tokens"
        self._most = replace(self._most, token_param=other)
        return True
