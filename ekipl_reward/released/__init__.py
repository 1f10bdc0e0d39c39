"""Reason-RFT's shipped rewards and evaluation, exactly, quirks included, wherever they are deterministic.

For comparing with published numbers. Source: tanhuajie/Reason-RFT, train/stage_rl/reward.py and eval/; nothing is copied.
Every difference to our own rules stands in docs/rewards.md.

    tags.py         answer and format, as the original's regular expressions see them, in linear time
    spatial.py      the three spatial rewards and the spatial evaluation
    fallback.py     math-verify, where the original falls back to it
    rules.py        which of these a task uses
"""
