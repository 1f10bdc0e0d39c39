"""Stock verl GRPO and EKIPL side by side in one run (docs/throughput.md).

__main__.py   `python -m recipe.ekipl.benchmark`: rows, experts, one training whose steps take turns, the table
arms.py       who takes part and in which order
on_verl.py    the worker and the sampler whose steps take turns; what is counted
table.py      steps -> numbers of each arm, ratios to stock, a table
"""
