"""The study's pieces, and its claims judged on evaluations that were made up so that the answer is known."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl import methods
from recipe.ekipl.data.splits import SPLITS
from recipe.ekipl.evaluate import options
from recipe.ekipl.evaluate.judge import RowScores, write_scores
from recipe.ekipl.evaluate.result import write_result
from recipe.ekipl.lanes import Lanes, makespan
from recipe.ekipl.measure.results import find_results
from recipe.ekipl.measure.runs import read_run
from recipe.ekipl.measure.statistics import Comparison
from recipe.ekipl.methods import METHODS
from recipe.ekipl.reproduce.__main__ import main
from recipe.ekipl.reproduce.claims import HELD, MISSING, NOT_HELD, UNDECIDED, answer, claims_of, state_of
from recipe.ekipl.reproduce.kept import keep, mark_of
from recipe.ekipl.reproduce.measured import Measured
from recipe.ekipl.reproduce.page import write_page
from recipe.ekipl.reproduce.perform import PieceError, left, perform
from recipe.ekipl.reproduce.pieces import Piece, Study, all_pieces, chosen, with_digests
from recipe.ekipl.reproduce.sizes import FAIR, LACKS, REGIMES, SIZES

ROWS, SAMPLES = 40, 8


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return Study(out, out / "kept", SIZES["path"], (0, 1))


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


def test_the_study_is_six_to_seven_hours_with_three_seeds(tmp_path):
    """By the guess that a step takes 7 s and its run 70 s to start."""
    pieces = all_pieces(Study(tmp_path, tmp_path / "kept", SIZES["study"], (0, 1, 2)))
    hours = makespan(pieces, {piece.name: piece.minutes for piece in pieces}, 1) / 60
    assert 6 < hours < 7


def test_a_dry_run_lists_the_pieces_and_does_nothing(tmp_path, capsys):
    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--seeds", "0"]) == 0
    shown = capsys.readouterr().out
    assert "lacks/ekipl-0" in shown and "hours left with 1 at a time" in shown
    assert not (tmp_path / "out").exists()
    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--only", "nothing"]) == 1
    assert main(["--dry-run", "--out", str(tmp_path / "out"), "--jobs", "0"]) == 1


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def somewhere(folder: Path, kept: Path | None = None) -> Study:
    return Study(folder, kept or folder / "kept", SIZES["path"], (0,))


def test_a_piece_is_done_once_and_again_when_it_is_told_something_else(tmp_path):
    study = somewhere(tmp_path)
    (piece,) = with_digests(study, [Piece("lacks/x-0", (python("print('hello')"),))])
    assert left(study, [piece]) == [piece]
    perform(study, piece, Lanes(1))
    assert left(study, [piece]) == []
    assert "hello" in (tmp_path / "lacks/x-0/piece.log").read_text()
    (other,) = with_digests(study, [replace(piece, commands=(python("print('other')"),))])
    assert left(study, [other]) == [other]
    perform(study, other, Lanes(1))  # finds nothing of the other version, which a stage would take for its own
    assert "hello" not in (tmp_path / "lacks/x-0/piece.log").read_text()


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


@pytest.mark.parametrize("kills", ["rename", "rmtree"])
def test_a_kill_while_numbers_are_kept_leaves_the_old_ones_or_none(tmp_path, monkeypatch, kills):
    made, kept = tmp_path / "made", tmp_path / "kept"
    evaluation(made / "evaluations" / "final", ["trance"], 0.7)
    keep(made, kept, {"digest": "old"})
    evaluation(made / "evaluations" / "final", ["trance"], 0.1)

    class Killed(BaseException): ...

    def killed(*args, **kwargs):
        raise Killed

    target = Path if kills == "rename" else shutil
    monkeypatch.setattr(target, kills, killed)
    with pytest.raises(Killed):
        keep(made, kept, {"digest": "new"})
    mark = mark_of(kept)
    assert mark is None or mark["digest"] == "old"
    monkeypatch.undo()
    keep(made, kept, {"digest": "new"})
    assert mark_of(kept) == {"digest": "new"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("kept")] == ["kept"]


def test_a_piece_that_fails_says_so_with_its_log_and_is_not_done(tmp_path):
    study = somewhere(tmp_path)
    piece = Piece("lacks/x-0", (python("import sys; print('why'); sys.exit(3)"), python("print('never')")))
    with pytest.raises(PieceError, match="(?s)status 3.*why"):
        perform(study, piece, Lanes(1))
    assert left(study, [piece]) == [piece]


def test_another_machine_does_what_is_missing_and_makes_only_the_models_that_it_needs(tmp_path):
    def pieces(study: Study) -> list[Piece]:
        makes = f"from pathlib import Path; Path({str(study.out)!r}, 'made').write_text('')"
        base = Piece("lacks/base-0", (python(makes),))
        first, second = (Piece(f"lacks/{name}-0", (python(makes),), ("lacks/base-0",)) for name in "xy")
        return with_digests(study, [base, first, second])

    here = somewhere(tmp_path / "here", tmp_path / "kept")
    base, first, second = pieces(here)
    perform(here, base, Lanes(1))
    perform(here, first, Lanes(1))
    there = somewhere(tmp_path / "there", tmp_path / "kept")
    base, first, second = pieces(there)
    assert left(there, [base, first, second]) == [base, second]
    assert left(there, [base, first]) == []
    perform(there, base, Lanes(1))
    assert left(there, [base, first, second]) == [second]


def test_what_is_kept_of_a_piece_tells_the_same_as_the_piece_itself(tmp_path):
    made, kept = tmp_path / "made", tmp_path / "kept" / "lacks" / "ekipl-0"
    run_folder(made, seed=0)
    evaluation(made / "evaluations" / "final", ["trance"], 0.7)
    keep(made, kept, {"seconds": 1.0, "digest": "", "base": None})
    before, after = read_run("run", made), read_run("run", kept)
    assert [row["ekipl/expert_share"] for row in after.trained] == pytest.approx(
        [row["ekipl/expert_share"] for row in before.trained], abs=1e-5
    )
    assert (after.batch, after.experts) == (before.batch, before.experts)
    (was,), (now,) = (find_results([str(folder)]) for folder in (made, kept))
    assert now.content == was.content and now.scores("trance") == was.scores("trance")
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) < 10_000
    keep(made, kept, {"seconds": 1.0, "digest": "", "base": None})  # again, over what was there
    assert find_results([str(kept)])[0].content == was.content


def test_ctrl_c_ends_all_that_run_and_none_is_taken_for_done(tmp_path):
    code = (
        "import sys; from pathlib import Path; from recipe.ekipl.reproduce.pieces import Piece, Study; from recipe.ekipl.lanes import Lanes, stop_like_ctrl_c\n"
        "from recipe.ekipl.reproduce.__main__ import do_all\n"
        "sleeps = ((sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'),)\n"
        "stop_like_ctrl_c()\n"
        "do_all(Study(Path(sys.argv[1]), Path(sys.argv[1], 'kept'), None, (0,)), [Piece('x/a', sleeps), Piece('x/b', sleeps)], Lanes(2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    logs = [tmp_path / "x" / name / "piece.log" for name in ("a", "b")]
    while not all(path.exists() and "\n1" in path.read_text() for path in logs):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert not list(tmp_path.rglob("*.done")) and not list(tmp_path.rglob("done.json"))


def test_experts_answer_while_their_piece_lasts(tmp_path, world):
    ask = "import os, urllib.request as u; print(u.urlopen(os.environ['EKIPL_DEMO_URL'] + '/v1/models').read())"
    piece = Piece("lacks/x-0", (python(ask),), world=world, skills=(1.0, 0.5))
    perform(somewhere(tmp_path), piece, Lanes(1))
    assert "demo-a" in (tmp_path / "lacks/x-0/piece.log").read_text()


@pytest.mark.parametrize(
    ("intervals", "state"),
    [
        ([(0.1, 0.2)], HELD),
        ([(0.1, 0.2), (-0.1, 0.2)], UNDECIDED),
        ([(0.1, 0.2), (-0.2, -0.1)], NOT_HELD),
        ([(-0.3, -0.1)], NOT_HELD),
        ([(0.0, 0.2)], UNDECIDED),
    ],
)
def test_a_claim_follows_from_its_intervals(intervals, state):
    assert state_of([Comparison(0.0, low, high, 0.5, 1, 0, 0) for low, high in intervals]) == state


# Accuracy of what is made up. Vision-EKIPL is best out of domain; Reason-RFT has fewer ways to be right than the base.
MADE_UP = {
    "zero_shot": 0.3,
    "ans_sft": 0.4,
    "cot_sft": 0.4,
    "grpo": 0.6,
    "reason_rft": 0.6,
    "ekipl": 0.95,
    "sft_ekipl": 0.9,
}


def evaluation(folder: Path, splits, accuracy: float, samples: int = 1, solvable: float = 1.0, seed: int = 0):
    """Scores of an evaluation: of the `solvable` rows, each sample is right with probability accuracy / solvable."""
    rng = np.random.default_rng([seed, samples, int(100 * accuracy)])
    summaries = {}
    for split in splits:
        rows = []
        for k in range(ROWS):
            right = rng.random(samples) < (accuracy / solvable if k < solvable * ROWS else 0.0)
            rows.append(RowScores(f"{split}-{k}", split, "1", [float(r) for r in right], [1.0] * samples))
        (folder / split).mkdir(parents=True, exist_ok=True)
        write_scores(folder / split / "scores.paper.jsonl", rows)
        mean = float(np.mean([row.mean for row in rows]))
        whole = {"mean": mean, "low": mean, "high": mean}
        curve = {str(k): whole for k in range(1, samples + 1) if samples > 1}
        summaries[split] = {"rows": ROWS, "samples": samples, "accuracy": whole, "pass_at_k": curve}
    head = {"name": folder.name, "method": folder.parents[1].name, "step": None, "samples_seen": None, "sampling": {}}
    write_result(folder / "result.paper.json", {**head, "rules": "paper"}, summaries)


def run_folder(folder: Path, seed: int):
    """A run whose experts' share falls from .8 to .2."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": step, "ekipl/groups/count": 4, "ekipl/groups/silent": 0.5, "ekipl/expert_share": share}
        | {"ekipl/policy/share": 1 - share, "ekipl/expert1/share": share, "ekipl/expert2/share": 0.0}
        for step, share in enumerate(np.linspace(0.8, 0.2, 12) + 0.01 * seed, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "plan.json").write_text('{"batch": 4}')
    (folder / "config.yaml").write_text("ekipl: {experts: [{name: demo-a}, {name: demo-b}]}")


@pytest.fixture(scope="module")
def made_up(study):
    splits = [split.name for split in SPLITS if split.is_test]
    for seed in study.seeds:
        for variant, accuracy in MADE_UP.items():
            at = study.kept_folder(LACKS, variant, seed)
            if variant not in ("zero_shot", "ans_sft", "cot_sft"):
                run_folder(at, seed)
            evaluation(at / "evaluations" / "final", splits, accuracy, seed=seed)
            if variant in ("zero_shot", "reason_rft", "ekipl"):
                reach = 0.6 if variant == "reason_rft" else 1.0
                evaluation(at / "evaluations" / "samples", ["trance"], accuracy, SAMPLES, reach, seed)
            if variant in ("ekipl", "sft_ekipl"):
                evaluation(at / "evaluations" / "step-1", splits, 0.9, seed=seed)
        for expert in ("demo-a", "demo-b"):
            evaluation(study.kept_folder(LACKS, "experts", seed) / "evaluations" / expert, splits, 0.4, seed=seed)
    return {study.name(LACKS, variant, seed): 60.0 for variant in (*MADE_UP, "experts") for seed in study.seeds}


def test_claims_are_answered_from_what_was_measured(study, made_up):
    measured = Measured(study, LACKS, frozenset(made_up))
    states = {claim.text: answer(claim, measured, "ekipl").state for claim in claims_of(LACKS.tasks)}
    assert states["visual counting, out of domain: Vision-EKIPL is best"] == HELD
    assert states["structure perception, out of domain: RL generalizes better than SFT"] == HELD
    assert states["spatial, in domain: with 25 % of the rows as good as all of Reason-RFT"] == HELD
    assert states["the experts' share of the kept answers falls"] == HELD
    assert states["spatial, out of domain: Vision-EKIPL ends above its experts"] == HELD
    assert states["pass@k, large k: the base model above Reason-RFT"] == HELD
    assert states["pass@k, every k: Vision-EKIPL above Reason-RFT"] == HELD
    assert "structure perception, in domain: Vision-EKIPL is best" not in states


def test_a_claim_that_is_turned_round_does_not_hold(study, made_up):
    measured = Measured(study, LACKS, frozenset(made_up))
    states = {claim.text: answer(claim, measured, "zero_shot").state for claim in claims_of(LACKS.tasks)[:2]}
    assert set(states.values()) == {NOT_HELD}


def test_what_no_finished_piece_has_is_not_measured(study, made_up):
    done = frozenset(name for name in made_up if "reason_rft" not in name)
    measured = Measured(study, LACKS, done)
    states = [answer(claim, measured, "ekipl").state for claim in claims_of(LACKS.tasks)]
    assert states.count(MISSING) > 5
    assert all(answer(claim, Measured(study, FAIR, done), "ekipl").state == MISSING for claim in claims_of(FAIR.tasks))


def test_the_page_shows_table_figures_and_claims_of_what_is_there(study, made_up, tmp_path, capsys):
    few = [p for p in all_pieces(study) if p.name in ("lacks/zero_shot-0", "lacks/reason_rft-0", "lacks/ekipl-0")]
    for number, piece in enumerate(few):
        mark = {"seconds": 60.0, "digest": piece.digest, "base": "abc" if number else "def"}
        (study.kept / piece.name / "done.json").write_text(json.dumps(mark))
    page = write_page(study, all_pieces(study), tmp_path / "docs")
    text = page.read_text()
    assert "| the experts' share of the kept answers falls | Figure 4 | **held** |" in text
    assert "+ Vision-EKIPL" in text
    assert "lacks, seed 0: its pieces start from 2 base models, made on several machines" in text
    assert "grpo" not in text  # its numbers lie there, and were kept under another digest or none
    assert "Regime: fair" not in text
    for name in ("table_1.csv", "figure_4_sources.png", "figure_4_sources.csv"):
        assert (tmp_path / "docs/results/lacks" / name).exists()
    assert json.loads((tmp_path / "docs/results/claims.json").read_text())["lacks"]["ekipl"]
