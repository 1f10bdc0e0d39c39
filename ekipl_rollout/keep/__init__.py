"""Keep: which of a group's judged candidates reach the gradient. Plain Python: no torch, no numpy, no verl.

    ties.py      order among equal rewards
    rules.py     ranked candidates -> the kept ones; a registry, and rules of one's own by dotted name
    limits.py    who may not enter, and who may not stay
    spread.py    mean, deviation, and whether a group teaches anything

group_filter.py puts them together. docs/selection_and_weights.md has the formulas and what was measured.
"""
