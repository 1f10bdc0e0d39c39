"""The memory estimate against transformers, verl's sharding and torch's own count."""

import json
import subprocess
import sys

import pytest
import yaml

from recipe.ekipl.hardware.memory import forward_backward
from recipe.ekipl.hardware.model_shape import TABLE, shape_of
from recipe.ekipl.tiny.model import build
from tests.recipe_ekipl.test_hardware import COUNTED

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("model", [name for name in yaml.safe_load(TABLE.read_text()) if name.endswith("Instruct")])
def test_parameters_are_those_of_transformers(model):
    import torch
    from transformers import AutoModelForImageTextToText

    from recipe.ekipl.hardware.measure_memory import hf_config

    with torch.device("meta"):
        built = AutoModelForImageTextToText.from_config(hf_config(model))
    assert shape_of(model).parameters == sum(p.numel() for p in built.parameters())


def test_the_estimate_is_within_15_percent_of_what_is_counted_now(tmp_path):
    gpus, tokens, committed = COUNTED[0]
    build(tmp_path, seed=0)
    command = ["-m", "recipe.ekipl.hardware.measure_memory", "--model", str(tmp_path)]
    sizes = ["--gpus", str(gpus), "--tokens", str(tokens), "--pictures", "0.5"]
    done = subprocess.run([sys.executable, *command, *sizes], capture_output=True, text=True, timeout=600, check=True)
    counted = json.loads(done.stdout.splitlines()[-1])["peak"]["total"]
    assert counted == pytest.approx(committed, rel=0.02)
    assert sum(forward_backward(shape_of(str(tmp_path)), tokens, 0.5, gpus).values()) == pytest.approx(
        counted, rel=0.15
    )
