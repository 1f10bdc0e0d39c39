"""Who the demo experts are: skill, phrasing and failures as configured."""

import argparse
import json
import shlex
import subprocess
import sys
import time
import urllib.request

import pytest

from recipe.ekipl.data.synthetic.write import write_world
from recipe.ekipl.tiny.demo_experts import PERSONAS, World, parse_persona

ROWS = 150
TASKS = ["visual_counting", "structure_perception", "spatial_transformation"]


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, TASKS, train=ROWS, base=0, test=0, seed=5)
    return folder


def share_right(folder, persona: str, task: str) -> float:
    name, changed = parse_persona(persona)
    world = World(folder, {name: changed}, seed=0)
    (path,) = [
        path for path in folder.glob("train_jsons/*.json") if json.loads(path.read_text())[0]["id"].startswith(task)
    ]
    rows = json.loads(path.read_text())
    right = 0
    for row in rows:
        names = [row["image"]] if isinstance(row["image"], str) else row["image"]
        pictures = [(folder / "images" / "train_images" / name).read_bytes() for name in names]
        (text,) = world.answers(name, pictures, f"{row['problem']} Answer in tags.", 1)
        right += f"<answer> {row['answer']} </answer>" in text
    return right / len(rows)


def test_a_persona_is_right_as_often_as_it_is_told_to_be_and_may_be_told_so_for_one_task(world_folder):
    persona = "demo-a:skill=0.2,structure_perception=0.9,broken=0"
    assert share_right(world_folder, persona, "structure_perception") == pytest.approx(0.9, abs=0.1)
    assert share_right(world_folder, persona, "visual_counting") == pytest.approx(0.2, abs=0.12)


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_persona_knows_every_row_also_where_two_have_the_same_picture(world_folder, task):
    assert share_right(world_folder, "demo-a:skill=1,broken=0", task) == 1.0


def test_a_server_beside_a_script_ends_when_the_script_is_killed(world_folder, tmp_path):
    """Whoever is killed hard runs no trap."""
    server = [sys.executable, "-m", "recipe.ekipl.tiny.demo_experts", "--data", str(world_folder), "--end-with-parent"]
    ready = tmp_path / "url"
    script = subprocess.Popen(["bash", "-c", f"{shlex.join([*server, '--ready', str(ready)])} & wait"])
    deadline = time.monotonic() + 60
    while not (ready.exists() and ready.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    script.kill()
    script.wait()
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{ready.read_text()}/v1/models", timeout=5).close()
        except OSError:  # refused, or reset while it ends
            return
        time.sleep(0.05)
    pytest.fail("it still answers")


def test_what_is_not_said_of_a_persona_stays_as_it_is():
    name, changed = parse_persona("demo-b:latency=2,spatial_transformation=0.5")
    assert (name, changed.skill, changed.voice) == ("demo-b", PERSONAS["demo-b"].skill, PERSONAS["demo-b"].voice)
    assert (changed.latency, changed.by_task) == (2.0, {"spatial_transformation": 0.5})
    assert PERSONAS["demo-b"].by_task == {}


@pytest.mark.parametrize(
    "words, why", [("demo-a:skil=1", "skil"), ("demo-a:skill=high", "high"), ("demo-a:voice=7", "voice=7")]
)
def test_a_persona_that_cannot_be_is_refused_with_the_reason(words, why):
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        parse_persona(words)
