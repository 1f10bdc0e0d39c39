"""One row of a training file as the question that experts are asked."""

from pathlib import Path

from ekipl_rollout.answer import Question
from ekipl_rollout.errors import SettingsError
from ekipl_rollout.prompt import question_of, raw_prompt_of


def read_row(path: str | Path, row: int) -> Question:
    """Row `row` of a parquet file in verl's layout: `prompt` with an <image> marker for each of `images`.

    Raises SettingsError when there is no such row, or when its markers and pictures do not match.
    """
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise SettingsError(f"--data {path} does not exist.")
    with pq.ParquetFile(path) as file:
        total, left = file.metadata.num_rows, row
        if not 0 <= row < total:
            raise SettingsError(f"--row {row}: {path} has rows 0 to {total - 1}.")
        group = 0
        while left >= file.metadata.row_group(group).num_rows:  # only the one that holds it: pictures make files large
            left, group = left - file.metadata.row_group(group).num_rows, group + 1
        names = [name for name in ("prompt", "images") if name in file.schema_arrow.names]
        values = file.read_row_group(group, columns=names).slice(left, 1).to_pylist()[0]
    try:
        return question_of(raw_prompt_of(values["prompt"], values.get("images") or ()), f"row {row}")
    except ValueError as error:
        raise SettingsError(f"--row {row} of {path}: {error}.") from None
