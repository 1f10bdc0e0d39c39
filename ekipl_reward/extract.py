"""Where in a response the reasoning ends and the answer stands.

Only `str.find` and `str.count` on text that strangers wrote: time is linear in its length.
"""

import re

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)

MAX_ANSWER_CHARS = 4096
"""A longer answer is wrong without being read: a count has a few characters, a sequence of calls a few hundred."""

_WRAPPED = re.compile(
    r"\*\*(.+)\*\*|`(.+)`|\$\$(.+)\$\$|\$(.+)\$|\\\((.+)\\\)|\\\[(.+)\\\]|\\(?:boxed|text|textbf|mathrm)\s?\{(.+)\}",
    re.DOTALL,
)


def last_answer(response: str) -> str | None:
    """Inside of the last complete answer block after the closing think tag, stripped; None without one.

    Example:
        "<think> <answer>4</answer> no </think><answer> 3 </answer>" -> "3"
    """
    rest = after_thinking(response)
    start = rest.rfind(ANSWER_OPEN, 0, max(rest.rfind(ANSWER_CLOSE), 0))
    if start < 0:
        return None
    start += len(ANSWER_OPEN)
    return rest[start : rest.find(ANSWER_CLOSE, start)].strip()


def after_thinking(response: str) -> str:
    """What follows the last closing think tag; the whole text without one."""
    close = response.rfind(THINK_CLOSE)
    return response if close < 0 else response[close + len(THINK_CLOSE) :]


def format_problem(response: str) -> str:
    """Why a response misses the format; "" when it has it.

    The format (paper, section 3.2: reasoning inside <think></think>, answer inside <answer></answer>): after stripping,
    exactly one think block followed by exactly one answer block, with nothing but blanks between them.
    """
    text = response.strip()
    for tag in TAGS:
        count = text.count(tag)
        if count != 1:
            return f"{tag} stands there {count} times" if count else f"{tag} is missing"
    if not text.startswith(THINK_OPEN):
        return f"it does not begin with {THINK_OPEN}"
    if not text.endswith(ANSWER_CLOSE):
        return f"it does not end with {ANSWER_CLOSE}"
    between = text[text.find(THINK_CLOSE) + len(THINK_CLOSE) : text.find(ANSWER_OPEN)]
    if between.strip() or text.find(ANSWER_OPEN) < text.find(THINK_CLOSE):
        return "there is more than blanks between the two blocks"
    return ""


def undecorated(text: str) -> str:
    """Without the wrapping that carries no meaning: blanks, bold, code, dollars, \\boxed{}, a final full stop.

    Example:
        " **$\\boxed{3}$**. " -> "3"
    """
    text = text.strip()
    for _ in range(4):
        if text.endswith(".") and len(text) > 1:
            text = text[:-1].rstrip()
        wrapped = _WRAPPED.fullmatch(text) if text[:1] in "*`$\\" else None
        if wrapped is None:
            break
        text = wrapped[wrapped.lastindex or 0].strip()
    return text
