"""What the policy is asked, per task. One user turn: the pictures first, then the text.

`reason_rft` follows Reason-RFT's training templates (train/stage_rl); `plain` is the bare problem, for the tiny model
that was brought up on bare problems.
"""

TAGS = "Output the thinking process in <think> </think> and the final answer ({answer}) in <answer> </answer> tags."


def reason_rft(task: str, problem: str, truth: str) -> str:
    if task == "visual_counting":
        return f"{problem} {TAGS.format(answer='number')}"
    if task == "structure_perception":
        if truth in ("A", "B", "C", "D"):  # as the original: the template gives the answer's type away
            ask = "Answer the question by writing the letter (A, B, C or D) that precedes the right choice."
            return f"{problem} {ask}\n{TAGS.format(answer='chosen letter')}"
        return f"{problem} {TAGS.format(answer='float number or int number')}"
    answer = "one call a line, such as change_color(0, red)"
    return f"{problem} {TAGS.format(answer=answer)}"


def plain(task: str, problem: str, truth: str) -> str:
    return problem


TEMPLATES = {"reason_rft": reason_rft, "plain": plain}
"""Name -> (task, problem, ground truth) -> text of the user turn."""
