"""Where in a response the reasoning ends and the answer stands.

Only `str.find` and `str.count` on text that strangers wrote: time is linear in its length.
"""

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def last_answer(response: str) -> str | None:
    """Inside of the last complete answer block after the closing think tag, stripped; None without one.

    Example:
        "<think> <answer>4</answer> no </think><answer> 3 </answer>" -> "3"
    """
    rest = after_thinking(response)
    close = rest.rfind(ANSWER_CLOSE)
    start = rest.rfind(ANSWER_OPEN, 0, max(close, 0))
    if close < 0 or start < 0:
        return None
    return rest[start + len(ANSWER_OPEN) : close].strip()


def after_thinking(response: str) -> str:
    """What follows the last closing think tag; the whole text without one."""
    close = response.rfind(THINK_CLOSE)
    return response if close < 0 else response[close + len(THINK_CLOSE) :]


def wears_the_format(response: str) -> bool:
    """True for exactly one think block followed by exactly one answer block, blanks around them allowed.

    The paper's format reward (section 3.2): reasoning inside <think></think>, answer inside <answer></answer>.
    """
    text = response.strip()
    if any(text.count(tag) != 1 for tag in TAGS):
        return False
    if not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return False
    think_end, answer_start = text.find(THINK_CLOSE), text.find(ANSWER_OPEN)
    between = text[think_end + len(THINK_CLOSE) : answer_start]
    return 0 < think_end < answer_start and not between.strip()
