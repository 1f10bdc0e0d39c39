"""The advantages that the viewer shows are those that training uses."""

import numpy as np
import pytest
import torch

from ekipl_rollout.on_verl.advantage import advantages
from ekipl_rollout.settings.advantage import AdvantageSettings
from recipe.ekipl.view.group import with_advantages

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("baseline", ["selected", "all", "policy_only"])
@pytest.mark.parametrize("std", ["selected", "all", "none"])
def test_the_viewer_shows_the_advantages_of_training(baseline, std):
    scores = [2.0, 2.0, 1.0, 1.5, 0.0, 1.0]
    answers = [
        {"source": "policy" if i % 2 else "gpt-4o", "score": score, "kept": i < 4, "parts": {}}
        for i, score in enumerate(scores)
    ]
    rule = AdvantageSettings(baseline, std)
    shown = with_advantages({"answers": answers}, rule, weighted=False)
    expected = advantages(
        torch.tensor(scores[:4], dtype=torch.float64), np.array(["g"] * 4), {"g": shown["statistics"]}, rule
    )
    kept = [answer for answer in shown["answers"] if answer["kept"]]
    by_score = sorted(zip(scores[:4], expected.tolist(), strict=True), reverse=True)
    assert [answer["advantage"] for answer in kept] == pytest.approx([a for _, a in by_score], rel=1e-9)
