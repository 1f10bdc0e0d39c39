"""The paper's claims, judged on evaluations that were made up so that the answer is known, and the page that shows them."""

import json

import pytest

from recipe.ekipl.data.splits import SPLITS
from recipe.ekipl.measure.statistics import Comparison
from recipe.ekipl.reproduce.claims import HELD, MISSING, NOT_HELD, UNDECIDED, answer, claims_of, state_of
from recipe.ekipl.reproduce.measured import Measured
from recipe.ekipl.reproduce.page import write_page
from recipe.ekipl.reproduce.pieces import Study, all_pieces
from recipe.ekipl.reproduce.sizes import FAIR, LACKS, SIZES
from tests.recipe_ekipl.reproduce_helpers import MADE_UP, evaluation, path_study, run_folder

SAMPLES = 8


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return path_study(tmp_path_factory.mktemp("study"))


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
    seeds = {answer(claim, measured, "ekipl").seeds for claim in claims_of(LACKS.tasks)}
    assert seeds == {len(study.seeds)}


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
    assert "| the experts' share of the kept answers falls | Figure 4 | **held** (1 seed) |" in text
    assert "+ Vision-EKIPL" in text
    assert "lacks, seed 0: its pieces start from 2 base models, made on several machines" in text
    assert "grpo" not in text  # its numbers lie there, and were kept under another digest or none
    assert "Regime: fair" not in text
    for name in ("table_1.csv", "figure_4_sources.png", "figure_4_sources.csv"):
        assert (tmp_path / "docs/results/lacks" / name).exists()
    assert json.loads((tmp_path / "docs/results/claims.json").read_text())["lacks"]["ekipl"]


@pytest.fixture
def right_or_wrong(tmp_path):
    """difference(first, second) of methods that are always right (1.0) or always wrong (0.0), by training seed."""
    study = Study(tmp_path, tmp_path / "kept", SIZES["path"], (0, 1, 2))

    def difference(**methods: dict[int, float]) -> Comparison:
        for method, by_seed in methods.items():
            for seed, accuracy in by_seed.items():
                evaluation(study.kept_folder(LACKS, method, seed) / "evaluations" / "final", ["trance"], accuracy)
        done = {study.name(LACKS, method, seed) for method, by_seed in methods.items() for seed in by_seed}
        measured = Measured(study, LACKS, frozenset(done))
        first, second = (measured.results(method) for method in methods)
        return measured.difference(first, second, ["trance"])

    return difference


@pytest.mark.parametrize("alone", [{"ekipl": 0.0}, {"grpo": 1.0}], ids=["a bad one of ours", "a good one of theirs"])
def test_a_seed_that_one_side_alone_has_changes_no_verdict(right_or_wrong, alone):
    """All seeds together would make it 2/3 or 1 - 1/3."""
    by_seed = {"ekipl": {0: 1.0, 1: 1.0}, "grpo": {0: 0.0, 1: 0.0}}
    before = right_or_wrong(**by_seed)
    assert (before.difference, before.runs, state_of([before])) == (1.0, 2, HELD)
    ((method, accuracy),) = alone.items()
    by_seed[method][2] = accuracy
    assert right_or_wrong(**by_seed) == before


def test_seeds_are_compared_each_with_its_own(right_or_wrong):
    """Seed 0 has a base model that learns, seed 1 one that does not; both methods fare alike on each."""
    found = right_or_wrong(ekipl={0: 1.0, 1: 0.0}, grpo={0: 1.0, 1: 0.0})
    assert (found.difference, found.low, found.high, found.runs) == (0.0, 0.0, 0.0, 2)
    assert state_of([found]) == UNDECIDED


def test_an_expert_was_asked_once_and_stands_beside_every_seed(study, made_up):
    measured = Measured(study, LACKS, frozenset(made_up))
    found = measured.difference(measured.results("ekipl"), measured.results("demo-a"), ["trance"])
    assert found.runs == len(study.seeds)


def test_without_a_seed_in_common_a_claim_is_not_measured(study, made_up):
    done = frozenset(name for name in made_up if name not in ("lacks/ekipl-0", "lacks/grpo-1"))
    claim = next(claim for claim in claims_of(LACKS.tasks) if "in domain: Vision-EKIPL is best" in claim.text)
    found = answer(claim, Measured(study, LACKS, done), "ekipl")
    assert (found.state, found.seeds) == (MISSING, 0)
