"""Which stages a method has, and what each is told. Real stages: tests/e2e/test_methods.py."""

import json
import sys
from pathlib import Path

import pytest

from recipe.ekipl import methods
from recipe.ekipl.compose import save_resolved
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.measure.table_rows import LABELS
from recipe.ekipl.methods import METHODS
from recipe.ekipl.processes import only_driver
from recipe.ekipl.run_files import RunFiles
from recipe.ekipl.sft import learn, read_config
from recipe.ekipl.sft import main as sft


@pytest.fixture(scope="module")
def rows(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    convert(world, out, ["visual_counting", "structure_perception"], "plain")
    return out


@pytest.fixture
def told(monkeypatch):
    """Command lines of the stages; each stage is taken to have worked and to have left a model."""
    commands: list[list[str]] = []

    monkeypatch.setattr(methods.Lanes, "call", lambda lanes, command: commands.append(command) or 0)
    monkeypatch.setattr(methods, "output_of", lambda stage: f"{stage.folder}/model")
    return commands


def run(rows, run_dir, method, *words):
    return methods.main(
        [method, "--model", "base", "--rows", str(rows / "visual_counting"), "--run", str(run_dir), *words]
    )


def test_the_methods_are_those_of_the_table():
    assert list(METHODS) == list(LABELS)


@pytest.mark.parametrize(
    ("method", "stages"),
    [
        ("zero_shot", []),
        ("ans_sft", ["train.ans.parquet"]),
        ("cot_sft", ["train.sft.parquet"]),
        ("grpo", ["experts=none"]),
        ("reason_rft", ["train.sft.parquet", "experts=none"]),
        ("ekipl", ["experts=demo"]),
        ("sft_ekipl", ["train.sft.parquet", "experts=demo"]),
    ],
)
def test_a_method_is_its_stages_each_from_the_model_of_the_one_before(rows, tmp_path, told, capsys, method, stages):
    assert run(rows, tmp_path / "run", method, "--experts", "demo") == 0
    assert len(told) == len(stages)
    for command, word in zip(told, stages, strict=True):
        assert word in " ".join(command)
    models = [next(w for w in c if w.partition("=")[0].endswith("model.path")).partition("=")[2] for c in told]
    after = json.loads(capsys.readouterr().out.splitlines()[-1])["model"]
    folders = [str(tmp_path / ("run-sft" if len(stages) == 2 and k == 0 else "run")) for k in range(len(stages))]
    assert [*models, after] == ["base", *(f"{folder}/model" for folder in folders)]


def test_reinforcement_learns_from_the_train_file_and_measures_itself_on_the_others(rows, tmp_path, told):
    run(rows, tmp_path / "run", "ekipl", "--experts", "demo", "trainer.total_training_steps=3")
    (command,) = told
    given = dict(word.partition("=")[::2] for word in command if "=" in word)
    assert given["data.train_files"] == f"[{rows}/visual_counting/train.rl.parquet]"
    assert (
        given["data.val_files"]
        == f"[{rows}/visual_counting/clevr_math.rl.parquet,{rows}/visual_counting/super_clevr.rl.parquet]"
    )
    assert given["trainer.total_training_steps"] == "3"


def test_several_folders_are_mixed_tasks_and_settings_may_stand_behind_them(rows, tmp_path, told):
    words = ["--rows", str(rows / "visual_counting"), str(rows / "structure_perception"), "data.seed=4"]
    assert methods.main(["grpo", "--model", "base", "--run", str(tmp_path / "run"), *words]) == 0
    assert "data.seed=4" in told[0]
    (files,) = [word for word in told[0] if word.startswith("data.train_files")]
    assert files.count("train.rl.parquet") == 2


def test_methods_can_share_a_supervised_stage(rows, tmp_path, told):
    for method in ("reason_rft", "sft_ekipl"):
        run(rows, tmp_path / method, method, "--sft-run", str(tmp_path / "warm"), "--experts", "demo")
    assert [word for command in told for word in command if word.startswith("run_dir=")] == [
        f"run_dir={tmp_path}/warm"
    ] * 2


def test_a_stage_that_fails_ends_the_method_with_its_status(rows, tmp_path, told, monkeypatch):
    commands = []
    monkeypatch.setattr(methods.Lanes, "call", lambda lanes, command: commands.append(command) or 7)
    assert run(rows, tmp_path / "run", "reason_rft") == 7
    assert len(commands) == 1


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("grpo", ["--sft", "optim.lr=1"], "grpo has no supervised stage"),
        ("cot_sft", ["data.seed=1"], "cot_sft has no reinforcement learning"),
        ("grpo", ["trainer.save_freq=5", "trainer.save_freq=-1"], "trainer.save_freq=-1: a method leaves a model"),
        ("ekipl", ["--experts", "none"], "ekipl is about experts"),
    ],
)
def test_settings_of_a_stage_that_is_not_there_are_refused(rows, tmp_path, told, capsys, method, words, message):
    assert run(rows, tmp_path / "run", method, *words) == 2
    assert message in capsys.readouterr().err
    assert told == []


def test_a_supervised_run_is_planned_in_steps_and_epochs(rows, tmp_path, capsys):
    lessons = rows / "visual_counting" / "train.sft.parquet"
    words = [f"data.train_files={lessons}", "model.path=a/model", f"run_dir={tmp_path}", "data.train_batch_size=4"]
    assert sft(["--dry-run", *words]) == 0
    shown = capsys.readouterr().out
    assert "12 rows of train.sft.parquet" in shown
    assert "3 of 4 rows = 1.00 epochs" in shown
    config = read_config("ekipl_sft", [*words, "data.train_max_samples=8", "trainer.total_epochs=5"])
    assert config.trainer.total_training_steps == 10
    assert Path(config.trainer.default_local_dir) == tmp_path / "checkpoints"


def lessons_done(rows, run_dir, *words) -> list[str]:
    """Three steps of lessons that are done; returns their settings."""
    model = run_dir / "checkpoints" / "global_step_3" / "huggingface"
    model.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    (run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    lessons = rows / "visual_counting" / "train.sft.parquet"
    settings = [
        f"data.train_files={lessons}",
        "model.path=a/model",
        f"run_dir={run_dir}",
        "data.train_batch_size=4",
        *words,
    ]
    save_resolved(read_config("ekipl_sft", settings), run_dir / "config.yaml")
    return settings


def test_lessons_that_are_done_are_found_while_another_method_looks_at_them(rows, tmp_path):
    settings = lessons_done(rows, tmp_path)
    with only_driver(tmp_path):
        assert learn(read_config("ekipl_sft", settings)) == tmp_path / "checkpoints/global_step_3/huggingface"


@pytest.mark.parametrize(
    "other",
    ["model.path=another/model", "data.train_max_samples=8", "data.train_batch_size=2", "data.train_files={other}"],
)
def test_lessons_of_another_model_or_on_other_rows_are_not_taken_for_these(rows, tmp_path, capsys, other):
    settings = lessons_done(rows, tmp_path)
    other = other.format(other=rows / "structure_perception" / "train.sft.parquet")
    assert sft([*settings, other]) == 2
    said = capsys.readouterr().err
    assert f"{other.partition('=')[0]}=" in said and f"but the run in {tmp_path} was begun with" in said
    assert "give this one another folder (run_dir=..." in said


def test_more_steps_go_on_with_the_same_lessons(rows, tmp_path, monkeypatch):
    settings = lessons_done(rows, tmp_path)
    monkeypatch.setattr("recipe.ekipl.sft._train", lambda config, files, enough: 3)
    assert learn(read_config("ekipl_sft", [*settings, "trainer.total_training_steps=9"])).parent.name == "global_step_3"


TRAINER_OF_FOUR_CHECKPOINTS = """
import os, pathlib, sys, time
root = pathlib.Path(sys.argv[1])
for step in range(int(sys.argv[2]) + 1, 5):
    model = root / "checkpoints" / f"global_step_{step}" / "huggingface"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("{}")
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "a") as losses:
        losses.write("{}\\n")
    (root / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize("enough_at", [2, 4, 9], ids=["in the middle", "at the end", "never"])
def test_learning_ends_at_the_first_checkpoint_that_is_enough_and_goes_on_from_a_stop(
    rows, tmp_path, monkeypatch, enough_at
):
    def command(config):
        start = RunFiles(config.run_dir).last_checkpoint()
        pause = "2" if enough_at < 4 else "0.2"
        return [sys.executable, "-c", TRAINER_OF_FOUR_CHECKPOINTS, config.run_dir, str(start), pause]

    looked: list[int] = []

    def enough(step, folder):
        assert folder == tmp_path / "checkpoints" / f"global_step_{step}" / "huggingface"
        looked.append(step)
        return step >= enough_at

    monkeypatch.setattr("recipe.ekipl.sft._command", command)
    monkeypatch.setattr("recipe.ekipl.sft.LOOK_SECONDS", 0.02)
    lessons = rows / "visual_counting" / "train.sft.parquet"
    words = [f"data.train_files={lessons}", "model.path=a/model", f"run_dir={tmp_path}", "data.train_batch_size=4"]
    config = read_config("ekipl_sft", [*words, "trainer.total_training_steps=4"])
    good = min(enough_at, 4)
    assert learn(config, enough).parent.name == f"global_step_{good}"
    assert looked == list(range(1, good + 1))
    assert learn(config, enough).parent.name == f"global_step_{good}"
    assert looked[-1] == good, "the one that was enough is looked at again, and nothing is learnt"


def test_everything_that_is_wrong_with_a_supervised_run_is_said_at_once(rows, tmp_path, capsys):
    rl = rows / "visual_counting" / "train.rl.parquet"
    words = [f"data.train_files=[{rl},{tmp_path}/nowhere.parquet]", "model.path=./nothing", "trainer.nnodes=2"]
    assert sft(["--dry-run", *words]) == 2
    said = capsys.readouterr().err
    for part in (
        "has no column `messages`",
        "nowhere.parquet does not exist",
        "holds no config.json",
        "trainer.nnodes=2",
    ):
        assert part in said
