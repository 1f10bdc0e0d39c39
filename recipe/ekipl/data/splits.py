"""The Reason-RFT files: which file is which split of which task (reason_rft: train_jsons/, test_jsons/).

File names carry row counts ("60k", "1k"), so they are found by pattern. The synthetic world writes the same names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """One file of the data set."""

    task: str
    name: str
    """`train`, `base` or the test split's name in Table 1 of the paper."""

    data_source: str
    """What the reward knows the rows by (ekipl_reward.tasks.DATA_SOURCES)."""

    pattern: str
    """Glob below the data folder; exactly one file must match."""

    @property
    def is_test(self) -> bool:
        return self.pattern.startswith("test_jsons/")


def _task(task: str, title: str, letter: str, sources: tuple[str, ...], ood: tuple[str, ...]) -> list[Split]:
    rows = [
        Split(task, "train", sources[0], f"train_jsons/A{letter}-{title}-train-*-cot.json"),
        # not among the released files: what the tiny base model is brought up on
        Split(task, "base", sources[0], f"train_jsons/B{letter}-{title}-base-*-cot.json"),
        Split(task, sources[0], sources[0], f"test_jsons/{title}-id-test-*.json"),
    ]
    for source, suffix in zip(sources[1:], ood, strict=True):
        rows.append(Split(task, source, source, f"test_jsons/{title}-{suffix}-test-*.json"))
    return rows


SPLITS: tuple[Split, ...] = (
    *_task("spatial_transformation", "Spatial-Transformation", "1", ("trance", "trance_left", "trance_right"), ("ood-left", "ood-right")),
    *_task("structure_perception", "Structure-Perception", "2", ("geomath", "geometry3k"), ("ood",)),
    *_task("visual_counting", "Visual-Counting", "3", ("clevr_math", "super_clevr"), ("ood",)),
)  # fmt: skip
"""Three train files, three base files and the seven test files."""

TASKS = ("visual_counting", "structure_perception", "spatial_transformation")


def splits_of(task: str) -> list[Split]:
    return [split for split in SPLITS if split.task == task]
