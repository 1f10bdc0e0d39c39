"""Pieces of the study as they are done, kept, killed, and gone on with on another machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recipe.ekipl.lanes import Lanes
from recipe.ekipl.measure.results import find_results
from recipe.ekipl.measure.runs import read_run
from recipe.ekipl.reproduce.kept import keep, mark_of
from recipe.ekipl.reproduce.perform import PieceError, left, perform
from recipe.ekipl.reproduce.pieces import Piece, Study, with_digests
from tests.recipe_ekipl.reproduce_helpers import evaluation, python, run_folder, somewhere


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
