"""What the tests share: two comparisons, each run once."""

import json
from pathlib import Path

import pytest

from tests.megatron_cpu.processes import run


@pytest.fixture(scope="session")
def megatron_folder(tmp_path_factory) -> Path:
    """What world_of_one left: models, and numbers in found.json."""
    folder = tmp_path_factory.mktemp("megatron")
    run("world_of_one", [str(folder)])
    return folder


@pytest.fixture(scope="session")
def alone(megatron_folder) -> dict:
    """What was found in a world of one process."""
    return json.loads((megatron_folder / "found.json").read_text())


@pytest.fixture(scope="session")
def together(megatron_folder) -> list[dict]:
    """What each of two processes found."""
    run("world_of_two", *([str(megatron_folder), rank] for rank in "01"))
    return [json.loads((megatron_folder / f"found-{rank}.json").read_text()) for rank in "01"]
