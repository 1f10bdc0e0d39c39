"""What the policy is asked, per task. One user turn: the pictures first, then the text.

    reason_rft            in substance Reason-RFT's training and evaluation templates (written anew, same literal words)
    reason_rft_neutral    the same, but structure perception does not say whether a letter or a number is expected
    plain                 the bare problem, for a model that was brought up on bare problems

Reason-RFT chooses between two wordings for GeoMath by looking at the truth, in training and in evaluation: the prompt tells
whether the answer is a letter. `reason_rft` keeps that, because published numbers were made so; `reason_rft_neutral` asks
"number or choice", as Reason-RFT itself does for Geometry3K.
"""

from collections.abc import Callable

TAGS = "Output the thinking process in <think> </think> and the final answer ({answer}) in <answer> </answer> tags."

SPATIAL = """\
The first image shows a scene, the second the same scene after 1 to 4 transformations. Objects of the first scene are \
listed as (object_id, shape, size, color, material). Find the transformations that lead from the first image to the second.
Each transformation is a call func(object_id, value):
- change_size(object_id, value): small, medium, large
- change_color(object_id, value): yellow, gray, cyan, blue, brown, green, red, purple
- change_material(object_id, value): glass, metal, rubber
- change_shape(object_id, value): cube, sphere, cylinder
- change_position(object_id, value): front, behind, left, right, front_left, front_right, behind_left, behind_right
Directions are those of the first image: front is towards the viewer, behind away from the viewer, left and right as seen \
by the viewer; front_left and the like are both at once.
Write the calls in order, one a line, with the ids of the list.
"""


def reason_rft(task: str, source: str, problem: str, truth: str) -> str:
    if task == "structure_perception" and source != "geometry3k":
        if truth in ("A", "B", "C", "D"):  # as the original: the template gives the answer's type away
            ask = "Answer the question by writing the letter (A, B, C or D) that precedes the right choice."
            return f"{problem} {ask}\n{TAGS.format(answer='chosen letter')}"
        return f"{problem} {TAGS.format(answer='float number or int number')}"
    return reason_rft_neutral(task, source, problem, truth)


def reason_rft_neutral(task: str, source: str, problem: str, truth: str) -> str:
    if task == "visual_counting":
        return f"{problem} {TAGS.format(answer='number')}"
    if task == "structure_perception":
        return f"{problem} {TAGS.format(answer='number or choice')}"
    if task == "spatial_transformation":
        return f"{SPATIAL}{problem}\n{TAGS.format(answer='sequence of calls')}"
    return f"{problem} {TAGS.format(answer='answer')}"


def plain(task: str, source: str, problem: str, truth: str) -> str:
    return problem


TEMPLATES: dict[str, Callable[[str, str, str, str], str]] = {
    "reason_rft": reason_rft,
    "reason_rft_neutral": reason_rft_neutral,
    "plain": plain,
}
"""Name -> (task, data source, problem, ground truth) -> text of the user turn."""
