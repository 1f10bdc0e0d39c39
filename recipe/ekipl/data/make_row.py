"""One JSON object -> one checked row."""

from collections.abc import Callable
from typing import Any

from ekipl_reward import RewardError, check_truth
from ekipl_reward.extract import TAGS
from recipe.ekipl.data.refusal import RowRefused
from recipe.ekipl.data.row import Picture, Row

MARKER = "<image>"
MEDIA = ("<video>", "<audio>")  # verl would look for a video
PLACES = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>")  # Qwen2-VL's processor would look for a picture


def make_row(
    raw: Any, *, index: int, task: str, source: str, split: str, load: Callable[[Any], Picture], pictures: int | None
) -> Row:
    """`raw`: what stands in the file; `pictures`: how many the task has, None for any number above zero. Raises RowRefused."""
    if isinstance(raw, RowRefused):
        raise raw
    if not isinstance(raw, dict):
        raise RowRefused("row", f"the row is not an object but {type(raw).__name__}")
    names = _names(raw)
    if pictures is not None and len(names) != pictures:
        raise RowRefused("number of pictures", f"{task} needs {pictures} picture(s), the row names {len(names)}")
    problem = _problem(raw.get("problem"), len(names))
    truth = raw.get("solution", raw.get("answer"))
    try:
        check_truth(source, truth)
    except RewardError as error:
        raise RowRefused("truth", f"`answer`: {error}") from None
    assert isinstance(truth, str)  # check_truth lets nothing else pass
    _check_marks("truth", "answer", truth)  # the end of a lesson
    _check_texts({"id": row_id(raw, index), "problem": problem, "answer": truth, "cot": raw.get("cot")})
    loaded = tuple(load(name) for name in names)
    return Row(row_id(raw, index), task, source, split, index, loaded, problem, truth, raw.get("cot"))


def row_id(raw: Any, index: int) -> str:
    """The row's own `id`, or its place in the file."""
    found = raw.get("id") if isinstance(raw, dict) else None
    return str(found) if isinstance(found, (str, int, float)) else f"#{index}"


def check_cot(row: Row) -> None:
    """Raises RowRefused when the row cannot be a lesson with reasoning."""
    if not isinstance(row.cot, str) or not row.cot.strip():
        raise RowRefused("reasoning", f"`cot` must be a text, not {row.cot!r:.80}")
    _check_marks("reasoning", "cot", row.cot)
    if held := [tag for tag in TAGS if tag in row.cot]:
        raise RowRefused(
            "reasoning", f"`cot` holds {', '.join(held)}; write the bare reasoning, the tags are put around it"
        )


def _names(raw: dict[str, Any]) -> list[Any]:
    """`image` or `images`: a name, or a list of names."""
    found = raw.get("image", raw.get("images"))
    found = [found] if isinstance(found, (str, dict)) else found
    if not isinstance(found, list) or not found:
        raise RowRefused("picture", f"`image` must be a file name or a list of them, not {found!r:.80}")
    return found


def _problem(problem: Any, pictures: int) -> str:
    """Reason-RFT's files for supervised learning put the markers before the problem; there they may stand."""
    if not isinstance(problem, str):
        raise RowRefused("problem", f"`problem` must be a text, not {problem!r:.80}")
    bare = problem.strip()
    for _ in range(pictures):
        bare = bare.removeprefix(MARKER).lstrip()
    if not bare:
        raise RowRefused("problem", "`problem` must be a text; it is empty")
    _check_marks("problem", "problem", bare)
    return problem if MARKER not in problem else bare


def _check_texts(texts: dict[str, Any]) -> None:
    """Raises RowRefused for half a character (a lone surrogate), which no file can hold."""
    for name, text in texts.items():
        try:
            if isinstance(text, str):
                text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowRefused("text", f"`{name}` is no Unicode: {text[error.start]!r} is half a character") from None


def _check_marks(kind: str, name: str, text: str) -> None:
    """verl and the processor take some words for a picture, video or sound, wherever they stand, and end where there is
    none: after hours, in the step that the row comes in."""
    if held := [mark for mark in (MARKER, *MEDIA, *PLACES) if mark in text]:
        raise RowRefused(kind, f"`{name}` holds {', '.join(held)}, which verl would take for a picture, video or sound")
