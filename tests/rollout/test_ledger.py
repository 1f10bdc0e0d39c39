"""The ledger: what is on the disk when a process is killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from ekipl_rollout.bounds.ledger import Ledger, LedgerError, Reserve, Settle, read_spent


def total(ledger):
    return sum(amount for _, _, amount in ledger.spent())


def test_what_is_settled_stays_and_what_was_out_is_charged_in_full(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.write([Reserve(1, "gpt", 3, 100), Reserve(2, "gpt", 3, 100), Reserve(3, "gemini", None, 50)])
    ledger.write([Settle(1, "gpt", 3, 40), Settle(9, "gpt", 4, 5)])
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite")
    assert sorted(again.spent(), key=str) == sorted([("gpt", 3, 140), ("gpt", 4, 5), ("gemini", None, 50)], key=str)
    assert (again.abandoned, again.abandoned_nano) == (2, 150)
    again.close()
    third = Ledger(tmp_path / "ledger.sqlite")
    assert (third.abandoned, total(third)) == (0, 195)


def test_a_second_process_is_refused_with_the_way_out(tmp_path):
    import ekipl_rollout.bounds.ledger as module

    first = Ledger(tmp_path / "ledger.sqlite")
    patience, module.BUSY_SECONDS = module.BUSY_SECONDS, 0.1
    try:
        with pytest.raises(LedgerError, match="another process"):
            Ledger(tmp_path / "ledger.sqlite")
    finally:
        module.BUSY_SECONDS = patience
        first.close()


def test_a_damaged_ledger_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 20)
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_ledger_of_another_version_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(LedgerError, match="version 7"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_disk_that_is_full_says_so_and_nothing_is_half_written(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.write([Reserve(1, "gpt", 1, 10)])
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.write([Settle(1, "gpt", 1, 10), Reserve(2, "gpt", 1, 10), Reserve(2, "gpt", 1, 10)])
    ledger.write([Settle(1, "gpt", 1, 3)])
    assert total(ledger) == 3


def test_an_amount_that_no_ledger_can_hold_is_refused_and_the_ledger_goes_on(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.write([Reserve(1, "gpt", 1, 10), Settle(1, "gpt", 1, 10**30)])
    ledger.write([Reserve(1, "gpt", 1, 10), Settle(1, "gpt", 1, 3)])
    assert total(ledger) == 3


def test_anybody_may_look_at_a_ledger_that_is_closed(tmp_path):
    path = tmp_path / "ledger.sqlite"
    assert read_spent(path) is None
    ledger = Ledger(path)
    ledger.write([Reserve(1, "gpt", 1, 10), Settle(2, "gpt", 1, 5)])
    assert read_spent(path) is None
    assert not path.with_name("ledger.sqlite-shm").exists()  # shared memory does not work on network file systems
    ledger.close()
    assert read_spent(path) == 15
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.sqlite"]  # a look leaves nothing behind
    assert os.stat(path).st_mode & 0o777 == 0o600


WRITER = """
import random, sys
from ekipl_rollout.bounds.ledger import Ledger, Reserve, Settle
ledger = Ledger(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
number, out = int(sys.argv[2]) * 1_000_000, []
while True:
    entries = [Reserve(number + i, "gpt", 1, 1000) for i in range(rng.randint(1, 5))]
    number += len(entries)
    settled = [Settle(out.pop(), "gpt", 1, rng.randint(0, 1000)) for _ in range(min(len(out), rng.randint(0, 5)))]
    print("".join(f"ending {e.request}\\n" for e in settled), end="", flush=True)
    ledger.write(entries + settled)
    out += [e.request for e in entries]
    # what is printed has gone out, or has been billed
    print("\\n".join([f"out {e.request}" for e in entries] + [f"billed {e.request} {e.nano}" for e in settled]), flush=True)
"""


@pytest.mark.parametrize("rounds", [int(os.environ.get("EKIPL_KILLS", "4"))])
def test_a_process_that_is_killed_never_forgets_money(tmp_path, rounds):
    """Killed at random points; after each, the ledger must hold at least what was billed and what may have been."""
    path, owed = tmp_path / "ledger.sqlite", 0
    for number in range(rounds):
        output = tmp_path / f"{number}.txt"
        with open(output, "w") as file:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], stdout=file)
            while output.stat().st_size < 2_000 and writer.poll() is None:
                time.sleep(0.01)
            time.sleep((number * 37 % 100) / 1000)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        told = {"out": {}, "ending": {}, "billed": {}}
        for line in output.read_text().split("\n")[:-1]:
            word, request, *cost = line.split()
            told[word][request] = int(cost[0]) if cost else 1000
        assert len(told["out"]) > 20
        # one whose settling was begun and not confirmed may stand there with either
        owed += sum(told["billed"].values()) + 1000 * len(told["out"].keys() - told["ending"].keys())
        ledger = Ledger(path)
        assert total(ledger) >= owed
        assert total(ledger) <= owed + 10_000 * (number + 1)  # at most the last write was not told
        owed = total(ledger)
        ledger.close()
