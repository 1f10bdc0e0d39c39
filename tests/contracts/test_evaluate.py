"""Evaluation with the real vLLM, and the real verl beside it."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.synthetic.write import write_world

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def parquet(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("parquet")
    convert(world, out, ["spatial_transformation"], "reason_rft")
    return out / "spatial_transformation" / "trance.rl.parquet"


def test_stopped_after_every_batch_an_evaluation_gives_the_same_bytes_as_in_one_pass(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.contracts.evaluate_interrupted", str(tmp_path)],
        stdout=subprocess.PIPE,
        check=True,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["stops"] == 2  # three batches
    assert seen["one"] == seen["resumed"]
    assert len(seen["keys"]) == 12 * 5
    assert seen["keys"][:6] == [[f"spatial_transformation-trance-{i // 5}", i % 5] for i in range(6)]
    assert seen["texts"] > 50  # samples of one row differ
    assert seen["tokens"] <= 16
    assert set(seen["statuses"]) <= {"finished", "cut_at_length"}
    short, *long, other = seen["beside_a_long_one"]
    assert long == ["prompt_too_long"] * 2
    assert {short, other} <= {"finished", "cut_at_length"}


def test_an_evaluation_killed_in_the_middle_gives_the_files_of_an_undisturbed_one_of_another_process(model, tmp_path):
    """The command itself, sampled answers, and SIGKILL: what one process began and another ended is what a third wrote alone."""
    write_world(tmp_path / "world", ["spatial_transformation"], train=0, base=0, test=12, seed=1)
    convert(tmp_path / "world", tmp_path / "rows", ["spatial_transformation"], "plain")

    def start(name: str) -> subprocess.Popen:
        what = ["--model", str(model), "--data", str(tmp_path / "rows"), "--splits", "trance"]
        how = ["--samples", "5", "--temperature", "1", "--seed", "3", "--max-tokens", "16", "--batch", "5"]
        words = [*what, *how, "--out", str(tmp_path / name / "evaluation")]
        return subprocess.Popen([sys.executable, "-m", "recipe.ekipl.evaluate", *words], stdout=subprocess.DEVNULL)

    def files(name: str) -> dict[str, bytes]:
        folder = tmp_path / name / "evaluation"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json*")}

    process, partial = start("killed"), tmp_path / "killed/evaluation/trance/answers.partial.jsonl"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 2 <= partial.read_bytes().count(b"\n") < 12, "batches"
    assert start("killed").wait() == start("alone").wait() == 0
    assert files("killed") == files("alone")
    assert {"trance/answers.jsonl", "trance/scores.paper.jsonl", "result.paper.json"} <= set(files("alone"))
    assert len(files("alone")["trance/answers.jsonl"].splitlines()) == 12 * 5


def test_a_model_is_asked_exactly_as_verl_asks_it(model, parquet):
    """Token ids and pictures of our evaluation are those of verl's own validation."""
    from omegaconf import OmegaConf
    from transformers import AutoProcessor
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
    from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens

    from recipe.ekipl.evaluate.on_vllm import Engine, prompt_of
    from recipe.ekipl.evaluate.rows import EvalSplit, read_rows

    processor = AutoProcessor.from_pretrained(model)
    config = OmegaConf.create({"image_key": "images", "filter_overlong_prompts": False})
    theirs = RLHFDataset([str(parquet)], processor.tokenizer, config, processor)
    builder = create_continuous_token_builder(processor.tokenizer, hf_model_type="qwen2_vl", processor=processor)
    rows = list(read_rows(EvalSplit("trance", parquet)))
    assert len(rows) == len(theirs) == 6
    for index, row in enumerate(rows):
        messages = theirs[index]["raw_prompt"]
        pictures, _ = asyncio.run(RLHFDataset.process_vision_info(messages, image_patch_size=14, config=config))
        ids = qwen2_5_vl_dedup_image_tokens(builder.build_initial_tokens(messages, images=pictures), processor)
        ours = prompt_of(row, processor, Engine())
        assert ours["prompt_token_ids"] == list(ids)
        assert len(pictures) == 2
        for a, b in zip(ours["multi_modal_data"]["image"], pictures, strict=True):
            assert a.size == b.size
            assert a.tobytes() == b.tobytes()


def test_fsdp_shards_are_merged_by_verl_into_the_model_they_are_shards_of(model, tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoProcessor, Qwen2VLForConditionalGeneration

    from recipe.ekipl.evaluate.checkpoint import find_checkpoint, merge

    actor = tmp_path / "checkpoints" / "global_step_7" / "actor"
    AutoConfig.from_pretrained(model).save_pretrained(actor / "huggingface")
    AutoProcessor.from_pretrained(model).save_pretrained(actor / "huggingface")
    whole = Qwen2VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    torch.save(whole.state_dict(), actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))

    checkpoint = find_checkpoint(tmp_path / "checkpoints" / "global_step_7")
    assert (checkpoint.shards, checkpoint.step) == (actor, 7)
    folder = merge(checkpoint)
    before, after = load_file(model / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(before) == set(after)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor.bfloat16())
    assert find_checkpoint(actor).shards is None
    assert (
        AutoProcessor.from_pretrained(folder).tokenizer.get_vocab()
        == AutoProcessor.from_pretrained(model).tokenizer.get_vocab()
    )


def test_what_verls_merger_says_is_passed_on_when_it_fails(tmp_path):
    from ekipl_rollout.errors import SettingsError
    from recipe.ekipl.evaluate.checkpoint import find_checkpoint, merge

    (tmp_path / "model_world_size_1_rank_0.pt").write_bytes(b"no checkpoint")
    with pytest.raises(SettingsError, match="(?s)could not merge.*huggingface"):
        merge(find_checkpoint(tmp_path))
    assert not (tmp_path / "huggingface-merged").exists()
