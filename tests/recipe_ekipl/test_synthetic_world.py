"""The synthetic world: what is drawn, asked and answered."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import ImageChops

from ekipl_reward import compute_score
from recipe.ekipl.data.splits import SPLITS, TASKS
from recipe.ekipl.data.synthetic import spatial
from recipe.ekipl.data.synthetic.problem import VOICES, response
from recipe.ekipl.data.synthetic.write import make, problem_of


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: f"{s.task}-{s.name}")
def test_right_reasoning_always_scores_full_and_a_near_miss_never_does(split):
    rng = np.random.default_rng(0)
    for _ in range(50):
        problem = make(split, rng)
        for voice in range(VOICES):
            right = compute_score(split.data_source, response(*problem.solve(rng, voice, True)), problem.answer)
            wrong = compute_score(split.data_source, response(*problem.solve(rng, voice, False)), problem.answer)
            assert right["score"] == 2.0
            assert wrong["format"] == 1.0
            assert wrong["accuracy"] < 1.0


@pytest.mark.parametrize(
    "far", [s for s in SPLITS if s.name in ("super_clevr", "geometry3k", "trance_left", "trance_right")]
)
def test_out_of_domain_pictures_of_the_same_problems_differ(far):
    """Drawn from the same random numbers, so that only the domain differs; in most rows, and by many pixels."""
    near = next(s for s in SPLITS if s.task == far.task and s.is_test and s is not far)
    shares = []
    for seed in range(20):
        one, other = (make(split, np.random.default_rng(seed)).images[-1] for split in (near, far))
        shares.append((np.asarray(one) != np.asarray(other)).any(axis=-1).mean())
    assert np.median(shares) > 0.02


@pytest.mark.parametrize("task", TASKS)
def test_hardly_a_held_out_row_has_the_pictures_and_the_question_of_a_training_row(task):
    def drawn(name, count):
        split = next(split for split in SPLITS if (split.task, split.name) == (task, name))
        for index in range(count):
            problem = problem_of(f"{task}-{split.name}-{index}", seed=0)
            yield problem.question, *(image.tobytes() for image in problem.images)

    seen = set(drawn("train", 1000))
    held_out = next(split.name for split in SPLITS if split.task == task and split.is_test)
    assert sum(row in seen for row in drawn(held_out, 200)) <= 4


def test_the_number_of_an_object_is_that_of_its_place_and_a_step_leads_to_a_free_one():
    split = next(split for split in SPLITS if split.name == "trance")
    changes = Counter()
    for seed in range(60):
        problem = make(split, np.random.default_rng(seed))
        seen = problem.chain_of_thought().split()
        named = [int(word) for word in problem.question.replace(",", " ").replace(".", " ").split() if word.isdigit()]
        assert named == [0, 1]
        assert [int(w) for before, w in pairwise(seen) if w.isdigit() and before in spatial.HUES] == [0, 1]
        changes[problem.answer.split("(")[0]] += 1
        if problem.answer.startswith("change_position"):
            assert seen.count("gone") == seen.count("came") == 1
    assert min(changes.values()) > 10 and len(changes) == 3, "each kind of change is as frequent as the others"


def test_a_row_is_drawn_again_from_its_id_alone():
    first, again = (problem_of("visual_counting-train-17", seed=5) for _ in range(2))
    other = problem_of("visual_counting-train-17", seed=6)
    assert (first.question, first.answer) == (again.question, again.answer)
    assert ImageChops.difference(first.images[0], again.images[0]).getbbox() is None
    assert ImageChops.difference(first.images[0], other.images[0]).getbbox() is not None


def test_the_world_has_the_released_layout(world):
    (train,) = world.glob("train_jsons/A1-Spatial-Transformation-train-*-cot.json")
    row = json.loads(train.read_text())[0]
    assert set(row) == {"id", "image", "problem", "cot", "answer"}
    assert len(row["image"]) == 2
    (test,) = world.glob("test_jsons/Visual-Counting-ood-test-*.json")
    assert set(json.loads(test.read_text())[0]) == {"id", "image", "problem", "answer"}
