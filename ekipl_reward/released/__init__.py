"""Reason-RFT's shipped rewards and evaluation, exactly, quirks included, wherever they are deterministic.

For comparing with published numbers. Source: tanhuajie/Reason-RFT at d0a8070, train/stage_rl/reward.py and
eval/cal_score_benchmarks_for_open_source.py; nothing is copied. Every difference to our own rules stands in
docs/rewards.md.

    tags.py         answer and format, as the original's regular expressions see them, in linear time
    spatial.py      the three spatial rewards and the spatial evaluation
    rules.py        which of these a task uses, and where it falls back to math-verify
"""
