"""A question that is asked ahead has the key of the one that the worker asks in training."""

import copy
import pickle

import pytest

from ekipl_rollout.prompt import question_of
from ekipl_rollout.record.key import key_of
from ekipl_rollout.settings import ExpertSettings
from recipe.ekipl.data.questions import read_questions
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import TASKS

pytestmark = pytest.mark.contract

EXPERT = ExpertSettings(name="gpt", kind="openai", model="m", base_url="http://127.0.0.1:1/v1")


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    convert(world, out, list(TASKS), "reason_rft")
    text_only = out / "text.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 1 + 1? <image>"}]
    row = {"data_source": "x", "prompt": prompt, "extra_info": {"index": 0, "id": "t"}}
    pq.write_table(pa.Table.from_pylist([row, row]), text_only)
    return [[str(path)] for path in sorted(out.glob("*/*.rl.parquet"))] + [[str(text_only)]]


def test_every_row_has_the_same_key_as_through_verls_data_set_and_batches(files, model, tmp_path):
    from omegaconf import OmegaConf
    from transformers import AutoProcessor
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    processor = AutoProcessor.from_pretrained(model)
    config = OmegaConf.create({"filter_overlong_prompts": False, "image_key": "images", "cache_dir": str(tmp_path)})
    compared = 0
    for names in files:
        data = RLHFDataset(copy.deepcopy(names), processor.tokenizer, config, processor)
        batch = collate_fn([data[i] for i in range(len(data))])
        theirs = pickle.loads(pickle.dumps(batch["raw_prompt"]))  # as it travels to the worker
        ours = list(read_questions(names))
        assert len(ours) == len(theirs)
        for row, raw_prompt in zip(ours, theirs, strict=True):
            assert key_of(EXPERT, row.question) == key_of(EXPERT, question_of(raw_prompt, "uid"))
            compared += 1
    assert compared > 3 * 12
