"""The paper's study in miniature, on a CPU: every method, all seven test splits, several seeds, in pieces.

sizes.py     how large: the study, or a proof that its path works
pieces.py    what there is to do: a list of pieces, each a few commands
digests.py   what a piece's numbers depend on
perform.py   what is left, and one piece: the experts it needs, its log, and that it is done
kept.py      what is kept of a finished piece, small enough to commit
measured.py  what finished pieces left behind
claims.py    what the paper claims, and whether it holds in what was measured
page.py      docs/results.md, tables and figures from that

A policy meets one of two regimes: `lacks` sees well but was never taught the skill; `fair` has half learnt it already.
"""
