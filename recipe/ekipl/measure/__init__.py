"""Numbers, tables and pages from what runs and evaluations left behind (docs/evaluation.md).

Reading order: runs.py and results.py (what is read), statistics.py (arrays in, numbers out), then what is made of it: compare.py,
table_1.py (table_rows.py, table_text.py), figures.py (figure_data.py, plot.py) and report.py, a run's own page (summary.py,
beside.py, curves.py).
"""
