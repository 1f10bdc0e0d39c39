"""Which pieces the study has, what each is told, and how long it may take."""

from dataclasses import replace
from pathlib import Path

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl import methods
from recipe.ekipl.data.splits import SPLITS
from recipe.ekipl.evaluate import options
from recipe.ekipl.lanes import makespan
from recipe.ekipl.methods import METHODS
from recipe.ekipl.reproduce.__main__ import main
from recipe.ekipl.reproduce.pieces import Piece, Study, all_pieces, chosen, with_digests
from recipe.ekipl.reproduce.sizes import FAIR, LACKS, REGIMES, SIZES
from tests.recipe_ekipl.reproduce_helpers import path_study, python, somewhere


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return path_study(tmp_path_factory.mktemp("study"))


def test_every_piece_comes_after_what_it_needs_and_every_method_and_split_is_measured(study):
    pieces = all_pieces(study)
    before: set[str] = set()
    for piece in pieces:
        assert set(piece.needs) <= before, piece.name
        before.add(piece.name)
    splits = [split.name for split in SPLITS if split.is_test]
    for variant in LACKS.variants:
        name = study.name(LACKS, variant, 0)
        commands = [" ".join(c) for p in pieces if p.name == name for c in p.commands]
        assert any(all(f" {split}" in command for split in splits) for command in commands), variant
    assert set(METHODS) <= set(LACKS.variants) and set(METHODS) <= set(FAIR.variants)


def test_only_chooses_by_name_with_what_is_needed(study):
    names = [piece.name for piece in chosen(all_pieces(study), ["fair/sft_ekipl-1"])]
    assert names == ["world", "lacks/base-1", "fair/base-1", "fair/warm-1", "fair/sft_ekipl-1"]
    with pytest.raises(SettingsError, match="names no piece"):
        chosen(all_pieces(study), ["fair/nothing*"])


def test_methods_with_the_same_first_stage_share_it_and_only_ours_leaves_the_papers_rule(study):
    commands = {piece.name: " ".join(piece.commands[0]) for piece in all_pieces(study)}
    needs = {piece.name: piece.needs for piece in all_pieces(study)}
    for name in ("lacks/reason_rft-0", "lacks/sft_ekipl-0"):  # two at once would be in each other's way there
        assert "--sft-run " + str(study.folder(LACKS, "warm", 0)) in commands[name]
        assert "lacks/warm-0" in needs[name]
    assert f"--run {study.folder(LACKS, 'warm', 0)} " in commands["lacks/warm-0"]
    lessons = commands["lacks/warm-0"].partition("--sft-config")[2]
    assert lessons and lessons in commands["lacks/reason_rft-0"]
    for name in ("lacks/ekipl-0", "lacks/sft_ekipl-0", "lacks/grpo-0"):
        assert "ekipl.advantage.baseline=selected" in commands[name]
    assert "ekipl.advantage.baseline=all" in commands["lacks/ekipl_all-0"]


def test_every_training_and_evaluation_of_the_study_is_understood_by_what_it_calls(study, monkeypatch):
    understood = []
    monkeypatch.setattr(methods, "run", lambda args: understood.append(methods.stages_of(args)) or 0)
    for piece in all_pieces(study):
        for _, _, module, *words in piece.commands:
            if module == "recipe.ekipl.methods":
                assert methods.main(words) == 0
                assert understood[-1][-1].folder == study.out / piece.name
            elif module == "recipe.ekipl.evaluate":
                args = options.read("", words)
                options.check(args)
                assert study.out / piece.name in args.out.parents
    trained = [v for regime in REGIMES.values() for v in (*regime.variants, "warm") if v != "zero_shot"]
    assert len(understood) == len(trained) * len(study.seeds)


def test_seeds_are_those_of_base_model_and_training_on_one_world(study):
    by_seed = {
        seed: {p.name: [c[1:] for c in p.commands] for p in all_pieces(replace(study, seeds=(seed,)))}
        for seed in (0, 1)
    }
    shared = set(by_seed[0]) & set(by_seed[1])
    assert shared == {"world"} | {f"{regime}/experts" for regime in REGIMES}
    assert all(by_seed[0][name] == by_seed[1][name] for name in shared)
    assert "data.seed=1" in " ".join(by_seed[1]["lacks/ekipl-1"][0])


def test_every_method_that_learns_is_measured_after_the_same_numbers_of_rows(study):
    """Figure 3: its checkpoints are kept, and those of the claims are looked at."""
    for size in ("study", "path"):
        pieces = {piece.name: piece for piece in all_pieces(replace(study, size=SIZES[size]))}
        for regime in REGIMES.values():
            every, *_ = early = SIZES[size].early_steps(regime.name)
            for variant in regime.variants:
                piece = pieces[study.name(regime, variant, 0)]
                looked = [
                    command[command.index("--model") + 1] for command in piece.commands if "--samples" not in command
                ]
                places = {Path(path).name for path in looked if "checkpoints" in path}
                if variant == "zero_shot":
                    assert not places
                    continue
                assert places == {f"global_step_{step}" for step in early}, piece.name
                assert f"trainer.save_freq={every}" in piece.commands[0]
                assert all(step % every == 0 for step in early)


def test_the_study_is_about_eight_hours_with_three_seeds(tmp_path):
    """By the guess that a step takes 7 s and its run 70 s to start."""
    pieces = all_pieces(Study(tmp_path, tmp_path / "kept", SIZES["study"], (0, 1, 2)))
    hours = makespan(pieces, {piece.name: piece.minutes for piece in pieces}, 1) / 60
    assert 7.5 < hours < 8.5


def test_a_dry_run_lists_the_pieces_and_does_nothing(tmp_path, capsys):
    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--seeds", "0"]) == 0
    shown = capsys.readouterr().out
    assert "lacks/ekipl-0" in shown and "hours left with 1 at a time" in shown
    assert not (tmp_path / "out").exists()
    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--only", "nothing"]) == 1
    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--jobs", "0"]) == 1


def test_what_a_piece_depends_on_without_naming_it_counts_as_well(tmp_path):
    study = somewhere(tmp_path)
    base, piece = Piece("lacks/base-0", (python("1"),)), Piece("lacks/x-0", (python("2"),), ("lacks/base-0",))
    before = with_digests(study, [base, piece])[1].digest
    assert with_digests(study, [base, piece])[1].digest == before
    assert with_digests(replace(study, out=tmp_path / "elsewhere"), [base, piece])[1].digest == before
    assert with_digests(study, [replace(base, commands=(python("3"),)), piece])[1].digest != before
    assert with_digests(study, [base, replace(piece, skills=(0.5, 0.5))])[1].digest != before
    larger = replace(study, size=replace(study.size, base_steps=99))
    digests = [{p.name: p.digest for p in all_pieces(each)} for each in (study, larger)]
    changed = {name for name in digests[0] if digests[0][name] != digests[1][name]}
    assert {"lacks/base-0", "lacks/ekipl-0", "fair/grpo-0"} <= changed and "world" not in changed
