"""Which judge looks at a row: data source -> task -> judge."""

from types import ModuleType

from ekipl_reward import spatial_transformation, structure_perception, visual_counting
from ekipl_reward.errors import TruthError, UnknownTaskError

TASKS: dict[str, ModuleType] = {
    "visual_counting": visual_counting,
    "structure_perception": structure_perception,
    "spatial_transformation": spatial_transformation,
}
"""Task -> the module whose `accuracy(answer, truth)` and `check_truth(truth)` are used."""

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
    """Task of a row. Raises UnknownTaskError with the known names."""
    if data_source in TASKS:
        return data_source
    task = DATA_SOURCES.get(data_source)
    if task is None:
        known = ", ".join([*TASKS, *DATA_SOURCES])
        raise UnknownTaskError(f"no reward is known for data_source={data_source!r}. Known: {known}.")
    return task


def check_truth(data_source: str, truth: object) -> None:
    """Raises TruthError when `truth` cannot be judged against."""
    if not isinstance(truth, str):
        raise TruthError(f"the ground truth must be a string, not {type(truth).__name__} {truth!r}")
    TASKS[task_of(data_source)].check_truth(truth)
