"""verl's SFT trainer takes both of our configurations, as they are written for it."""

import pytest

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("name", ["ekipl_sft", "ekipl_sft_tiny"])
def test_verl_reads_every_part_of_the_configuration(world, tmp_path, monkeypatch, name):
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass

    from recipe.ekipl.compose import save_resolved
    from recipe.ekipl.data.reason_rft import convert
    from recipe.ekipl.sft import TRAINER, _command, read_config
    from recipe.ekipl.tiny.model import build

    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    build(tmp_path / "model", seed=0)
    convert(world, tmp_path / "rows", ["visual_counting"], "plain")
    lessons = tmp_path / "rows" / "visual_counting" / "train.sft.parquet"
    words = [f"model.path={tmp_path}/model", f"data.train_files={lessons}", f"run_dir={tmp_path}/run"]
    config = read_config(name, [*words, "data.train_batch_size=4"])
    save_resolved(config, tmp_path / "run" / "config.yaml")

    written = OmegaConf.load(tmp_path / "run" / "config.yaml")
    for part in ("engine", "optim", "checkpoint", "profiler", "model"):
        assert omega_conf_to_dataclass(written[part]) is not None
    assert "hf_model" in written.checkpoint.save_contents, "the next stage and the evaluation read it"
    many = name == "ekipl_sft"
    assert ("torch.distributed.run" in _command(config)) == many
    assert TRAINER in _command(config)
