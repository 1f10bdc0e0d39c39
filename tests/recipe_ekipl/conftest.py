"""Rows for the tests of this folder."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def parquet(world, tmp_path_factory) -> Path:
    from recipe.ekipl.data.reason_rft import convert

    out = tmp_path_factory.mktemp("parquet")
    convert(world, out, ["visual_counting", "spatial_transformation"], "plain")
    return out
