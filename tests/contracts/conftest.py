"""The contracts import verl, vLLM and Ray for a CPU: the platform must be chosen before any of them is imported."""

import asyncio
import copy
import os
from pathlib import Path

import pytest

from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl import cpu
from tests.rollout import record_helpers

if cpu.wanted():
    os.environ.update(cpu.environment())


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The tiny Qwen2-VL, untrained; tests read it and leave it as it is."""
    from recipe.ekipl.tiny.model import build

    folder = tmp_path_factory.mktemp("model")
    build(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def rows(world, tmp_path_factory) -> Path:
    """The synthetic counting task as parquet; the other tasks lie beside it."""
    from recipe.ekipl.data.reason_rft import convert
    from recipe.ekipl.data.splits import TASKS

    out = tmp_path_factory.mktemp("rows")
    convert(world, out, list(TASKS), "plain")
    return out / "visual_counting"


@pytest.fixture
def composed(rows, tmp_path, monkeypatch):
    """composed(name, *overrides) with data and model that exist."""
    from recipe.ekipl.compose import compose_config, make_consistent

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456")
    monkeypatch.setenv("GEMINI_API_KEY", "test-0123456")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "test-0123456")
    (tmp_path / "config.json").write_text("{}")

    def make(name, *overrides):
        files = [
            f"data.train_files={rows}/train.rl.parquet",
            f"data.val_files={rows}/clevr_math.rl.parquet",
            f"actor_rollout_ref.model.path={tmp_path}",
            f"ekipl.run_dir={tmp_path}",
            "data.train_batch_size=4",
        ]
        config = make_consistent(compose_config(name, [*files, *overrides]))
        if config.ekipl.record.mode == "replay":
            for expert in EkiplSettings.from_config(config.ekipl, check=False).experts:
                record_helpers.fill(tmp_path / "records.sqlite", settings=expert)
        return config

    return make


@pytest.fixture(scope="session")
def worker_config(model):
    """The tiny run with N = G = 4, nothing written."""
    from recipe.ekipl.compose import compose_config

    return compose_config(
        "ekipl_tiny",
        [
            f"actor_rollout_ref.model.path={model}",
            "actor_rollout_ref.model.external_lib=null",
            "actor_rollout_ref.rollout.n=4",
            "ekipl.keep_groups=false",
            "ekipl.num_answers=4",
            "ekipl.record.mode=off",
        ],
    )


@pytest.fixture
def run(worker_config, monkeypatch):
    """run(worker class, policy texts, experts) -> the queue after one prompt."""
    import verl.trainer.ppo.v1.agent_loop_tq as theirs
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    from ekipl_rollout.on_verl import worker as ours
    from tests.contracts.scripted_worker import Queue, answer_one_prompt

    def start(cls, texts, experts=(), settings=None, **how):
        queue = Queue()
        monkeypatch.setattr(theirs, "tq", queue)
        monkeypatch.setattr(ours, "tq", queue)
        monkeypatch.setattr(
            theirs.AgentLoopWorkerTQ.__ray_metadata__.modified_class, "__init__", AgentLoopWorker.__init__
        )
        config = copy.deepcopy(worker_config)
        for key, value in (settings or {}).items():
            OmegaConf.update(config, key, value)
        return asyncio.run(answer_one_prompt(cls, config, queue, texts, experts, **how))

    return start


@pytest.fixture
def classes():
    """verl's worker and ours, as plain classes."""
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    from ekipl_rollout.on_verl.worker import EkiplWorker

    return AgentLoopWorkerTQ.__ray_metadata__.modified_class, EkiplWorker
