"""Checks on a real GPU: `python -m recipe.ekipl.gpu` (docs/gpu.md). Random weights: nothing is downloaded.

sizes.py       which Qwen2-VL: tiny (runs on a CPU, as the test does) or the public 2B's shape; written to disk
rows.py        the rows of one EKIPL update: pictures, mixed sources, the best G, their advantages
plain.py       the update in plain transformers and PyTorch, written from the paper: what verl is held against
on_verl.py     the same update through verl's actor worker, as a run has it
side.py        each of the two in a process of its own: verl patches transformers' classes for good
attention.py   check 1: attention implementations, precisions and devices agree
engine.py      check 2: verl's log-probs and its update are the plain ones
update.py      check 3: seconds, tokens/s, MFU and peak memory of an update, verl beside plain
flops.py       the FLOPs of a Qwen2-VL, counted from its shapes
"""
