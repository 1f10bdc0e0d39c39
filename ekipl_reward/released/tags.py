"""What the original's two regular expressions match, found with plain string search.

answer    first `<answer>` up to the first `</answer>` after it, dot matches newline
format    re.fullmatch("<think>.*?</think>\\s*<answer>.*?</answer>", DOTALL): loose inside, because the lazy parts are
          stretched until the whole text matches; one trailing newline fails
"""

import re

THINK_OPEN, ANSWER_OPEN, ANSWER_CLOSE = "<think>", "<answer>", "</answer>"
_BETWEEN = re.compile(r"</think>\s*<answer>")


def first_answer(text: str, over_lines: bool = True) -> str | None:
    """Inside of the first answer block, stripped; None without one. `over_lines=False` is a pattern without DOTALL: the
    block must stand on one line, and the first one that does is taken."""
    start = text.find(ANSWER_OPEN)
    while start >= 0:
        inside = start + len(ANSWER_OPEN)
        end = text.find(ANSWER_CLOSE, inside)
        if end < 0:
            return None
        if over_lines or "\n" not in text[inside:end]:
            return text[inside:end].strip()
        # without DOTALL no opening tag before the last newline can reach this closing tag
        newline = text.rfind("\n", inside, end)
        start = text.find(ANSWER_OPEN, newline)
    return None


def answer_or_all(text: str, over_lines: bool = True) -> str:
    """The first answer, or the whole text without one; stripped."""
    answer = first_answer(text, over_lines)
    return text.strip() if answer is None else answer


def wears_the_format(text: str) -> bool:
    """The original's format reward as a truth value."""
    if not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return False
    between = _BETWEEN.search(text, len(THINK_OPEN))
    return between is not None and between.end() <= len(text) - len(ANSWER_CLOSE)
