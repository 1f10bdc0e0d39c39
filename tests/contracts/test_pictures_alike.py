"""The limits that a row's pictures carry hold in training, in supervised learning, in the rollout and in the evaluation."""

import asyncio

import pytest

pytestmark = pytest.mark.contract

SMALL, LARGE = 28 * 28 * 4, 28 * 28 * 16
"""The tiny model's processor has these limits; a synthetic picture has 84 x 84 pixels to count, two of 56 x 56 to compare."""
CASES = [
    ("visual_counting", (1, SMALL), [56]),
    ("visual_counting", (1, LARGE), [84]),
    ("spatial_transformation", (1, LARGE), [56, 56]),
    ("spatial_transformation", (LARGE, LARGE), [112, 112]),
]


@pytest.mark.parametrize("pictures", ["embed", "reference"])
@pytest.mark.parametrize(("task", "limits", "sides"), CASES)
def test_a_picture_has_one_size_wherever_it_is_used(world, model, tmp_path, pictures, task, limits, sides):
    from omegaconf import OmegaConf
    from transformers import AutoProcessor
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from recipe.ekipl.data.reason_rft import convert
    from recipe.ekipl.evaluate.on_vllm import Engine, prompt_of
    from recipe.ekipl.evaluate.rows import EvalSplit, read_rows

    how = {"pictures": pictures, "min_pixels": limits[0], "max_pixels": limits[1]}
    convert(world, tmp_path, [task], "plain", **how)
    rows = tmp_path / task
    processor = AutoProcessor.from_pretrained(model)

    config = OmegaConf.create({"image_key": "images", "filter_overlong_prompts": False})
    messages = RLHFDataset([str(rows / "train.rl.parquet")], processor.tokenizer, config, processor)[0]["raw_prompt"]
    rollout, _ = asyncio.run(RLHFDataset.process_vision_info(messages, image_patch_size=14, config=config))
    ours = prompt_of(next(read_rows(EvalSplit("train", rows / "train.rl.parquet"))), processor, Engine())
    assert [picture.size for picture in rollout] == [(side, side) for side in sides]
    assert [picture.tobytes() for picture in ours["multi_modal_data"]["image"]] == [p.tobytes() for p in rollout]

    lesson = MultiTurnSFTDataset(
        [str(rows / "train.sft.parquet")], processor.tokenizer, {"max_length": 256, "image_key": "images"}, processor
    )[0]
    assert lesson["multi_modal_inputs"]["image_grid_thw"].tolist() == [[1, side // 14, side // 14] for side in sides]
    in_training = processor(
        text=["<|vision_start|><|image_pad|><|vision_end|>" * len(sides)], images=rollout, return_tensors="pt"
    )
    assert in_training["image_grid_thw"].tolist() == [[1, side // 14, side // 14] for side in sides]
