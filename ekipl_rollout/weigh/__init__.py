"""Weigh: how much each kept answer counts (paper, appendix A). Plain Python in log space: no torch, no numpy, no verl.

    row.py           what is known about a kept answer: its log-probabilities
    modes.py         rows of a group -> weights; one function for each `ekipl.weights.mode`
    batch.py         the groups of a batch, found by uid; metrics
    diagnostics.py   effective sample size, quantiles, the bias bound: what says whether to trust them

docs/selection_and_weights.md has the formulas and what to expect of each.
"""
