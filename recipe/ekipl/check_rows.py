"""The rows of a run, its model, and whether every row can be judged (checks.py)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from ekipl_reward import OptionError, RewardError, check_truth, symbolic
from ekipl_reward.options import read_options
from ekipl_rollout.errors import Lacking
from recipe.ekipl.plan import count_by_source

OUR_REWARD = "pkg://ekipl_reward"
BAD_ROWS_SHOWN = 5
COLUMNS = ("data_source", "reward_model")


def reward(config: DictConfig) -> Iterator[str]:
    """Problems of how answers are judged, where our reward does it."""
    function = config.reward.custom_reward_function
    if function.path != OUR_REWARD:
        return
    said = set()
    for at, block in (
        ("ekipl.reward", config.ekipl.get("reward")),
        ("reward.custom_reward_function.reward_kwargs", function.get("reward_kwargs")),
    ):
        try:
            read_options(**_plain(block))
        except OptionError as error:
            if str(error) not in said:
                yield f"{at}: {error}"
            said.add(str(error))
    if problem := symbolic.installation_problem():
        yield Lacking(f"reward.custom_reward_function.path={OUR_REWARD}: {problem}")


def _plain(block: DictConfig | None) -> dict[str, Any]:
    return {} if block is None else cast("dict[str, Any]", OmegaConf.to_container(block, resolve=True))


def data_sources(config: DictConfig) -> set[str]:
    """Those of the training rows, as far as they can be read."""
    named = config.data.train_files
    names = [named] if isinstance(named, str) else named or []
    return set(count_by_source([name for name in names if not file_problem(name)]))


def files(config: DictConfig) -> Iterator[str]:
    """Problems of data files and of a model on disk."""
    for key in ("train_files", "val_files"):
        if not config.data[key]:
            yield f"data.{key} is not set. Give parquet files that `python -m recipe.ekipl.data` made: data.{key}=rows/...parquet."
        for name in config.data[key]:
            if problem := file_problem(name):
                yield (str if Path(name).is_file() else Lacking)(f"data.{key}: {name} {problem}")
            else:
                yield from _rows(f"data.{key}: {name}", Path(name), config)
    model = str(config.actor_rollout_ref.model.path)
    if model.startswith(("/", "./", "../", "~")) and not (Path(model).expanduser() / "config.json").is_file():
        yield Lacking(
            f"actor_rollout_ref.model.path={model} holds no config.json. Give a Hugging Face folder or the name of a model."
        )


def file_problem(name: str) -> str:
    """Why a file of rows cannot be read, and the way out; "" when it can."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(name).is_file():
        return "does not exist. Make it with `python -m recipe.ekipl.data`."
    try:
        columns = pq.read_schema(name).names
    except (OSError, pa.ArrowException) as error:
        return f"is no parquet file ({error}). Convert yours with `python -m recipe.ekipl.data own`."
    missing = [column for column in COLUMNS if column not in columns]
    return f"lacks the columns {', '.join(missing)}. Make it with `python -m recipe.ekipl.data`." if missing else ""


def _rows(at: str, path: Path, config: DictConfig) -> Iterator[str]:
    """A truth in each row that our reward can judge against."""
    import pyarrow.parquet as pq

    function = config.reward.custom_reward_function
    if function.path != OUR_REWARD:
        return
    rules = _plain(function.get("reward_kwargs")).get("rules", "paper")
    table = pq.read_table(path, columns=["data_source", "reward_model"]).to_pylist()
    bad = []
    for index, row in enumerate(table):
        try:
            check_truth(row["data_source"], (row["reward_model"] or {}).get("ground_truth"), rules)
        except RewardError as error:
            bad.append(f"row {index}: {error}")
    if bad:
        yield f"{at}: {len(bad)} of {len(table)} rows cannot be judged: " + "; ".join(bad[:BAD_ROWS_SHOWN])
