"""The ablation: which selection rule, baseline and weight one should use, on the tiny model and the real stack.

    python -m recipe.ekipl.ablation run --dry-run     what would be run, and how long it takes
    python -m recipe.ekipl.ablation run               runs what is missing, one line a run in the results file
    python -m recipe.ekipl.ablation table             table and figures from that file

scripts/ablation_tiny.sh does all of it. cells.py says what is compared, runner.py trains one cell, results.py reads and writes
lines, table.py makes numbers and figures of them.
"""
